"""What follows from a part of a batch, and its dead letters, brought to Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from connectors.kafka import KafkaUnavailableError, Producer, dead_letter_headers
from schemas.envelope import headers, new_traceparent, parse_headers
from schemas.errors import ContractError
from streams.agents.stage import Message
from streams.agents.task import Task, pairs

__all__ = ["Delivery"]

_DELIVERY_S = 30.0


class Delivery:
    """Produces to a stage's target topic, under its name, and to the dead-letter topics of its sources."""

    def __init__(self, stage: str, target: str, producer: Producer) -> None:
        self._stage, self._target, self._producer = stage, target, producer

    def deliver(self, done: list[Task], dead: list[tuple[Message, str]]) -> None:
        """Produce everything and wait until Kafka has it. Repeating it repeats the same ids.

        A task whose record is larger than its topic takes goes from `done` to `dead`. Raises
        KafkaUnavailableError.
        """
        errors: list[str] = []

        def told(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(str(error))

        for task in [each for each in done if each.encoded]:
            try:
                for value, key, sent in list(self._sent(task)):
                    self._producer.produce(self._target, value, key=key, headers=sent, on_delivery=told)
            except ContractError as error:
                done.remove(task)
                dead.append((task.message, str(error)))
        for message, reason in dead:
            self._producer.produce(
                f"{message.topic}.dlq",
                message.value,
                key=message.key,
                headers=dead_letter_headers(
                    message.topic, message.partition, message.offset, pairs(message), reason, self._stage
                ),
                on_delivery=told,
            )
        left = self._producer.flush(_DELIVERY_S)
        if left or errors:
            reason = errors[0] if errors else f"{left} messages unacknowledged"
            raise KafkaUnavailableError(f"{self._stage} cannot produce: {reason}")

    def _sent(self, task: Task) -> Iterator[tuple[bytes | None, bytes, list[tuple[str, bytes]]]]:
        """Value, key and headers of each record that follows from a message."""
        trace = parse_headers(pairs(task.message)).traceparent
        source = f"dealeriq/{self._stage}"
        for each, value in task.encoded:
            identity = each.identity or (each.record or {})["event_id"]
            time_ms = task.event.time_ms if each.time_ms is None else each.time_ms
            sent = headers(identity, self._target, source, time_ms, each.subject, new_traceparent(trace))
            yield value, each.key.encode(), sent
