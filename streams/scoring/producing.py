"""Scores on their way to Kafka: with the causes behind them, as messages, and sent until Kafka has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.kafka import KafkaUnavailableError, Producer
from schemas.envelope import headers, new_traceparent, parse_headers
from streams.scoring.scores import Scores
from streams.scoring.version import DEALER, Version

__all__ = ["SCORES", "Caused", "ScoreProducer"]

SCORES = "scores"
_DELIVERY_S = 30.0


@dataclass(frozen=True)
class Caused:
    """Scores of one version, and of each the message that caused it; None where a decision did."""

    version: Version
    scores: Scores
    causes: Sequence[Any]

    def messages(self, schema_id: int, stage: str) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
        """Yield key, value and headers of each: in the trace of its cause, or in a new one."""
        scores, source = self.scores, f"dealeriq/{stage}"
        values = self.version.messages(scores, schema_id)
        columns = (scores.event_ids, scores.times.tolist(), scores.subjects, scores.keys[DEALER])
        for cause, value, told in zip(self.causes, values, zip(*columns, strict=True), strict=True):
            event_id, time_ms, subject, dealer = told
            trace = new_traceparent(None if cause is None else parse_headers(cause.headers()).traceparent)
            yield dealer.encode(), value, headers(event_id, SCORES, source, time_ms, subject, trace)


class ScoreProducer:
    """Sends the scores of a stage. `schema_id` returns the registry's id of their schema; it is asked once."""

    def __init__(self, producer: Producer, schema_id: Callable[[], int], stage: str) -> None:
        self._producer, self._ask, self._stage = producer, schema_id, stage
        self._schema_id: int | None = None

    def send(self, scored: Sequence[Caused]) -> None:
        """Produce all of them and wait until Kafka has them. Raises KafkaUnavailableError; what was sent by
        then may come again, with the same ids.
        """
        if self._schema_id is None:
            self._schema_id = self._ask()
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(error)

        for each in scored:
            for key, value, head in each.messages(self._schema_id, self._stage):
                self._producer.produce(SCORES, value, key=key, headers=head, on_delivery=delivered)
        left = self._producer.flush(_DELIVERY_S)
        if left or errors:
            reason = errors[0].str() if errors else f"{left} messages unacknowledged"
            raise KafkaUnavailableError(f"{self._stage} cannot produce: {reason}")
