"""What becomes of one batch: decoded, checked, handled, produced; a dead letter for each event that cannot be.

It knows nothing of Faust: messages in, and when `process` returns every one of them is either in the target
topic, in the dead-letter topic, or counted as a tombstone. It blocks, so its host runs it in a thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from connectors.errors import translated
from connectors.kafka import KafkaUnavailableError, Producer, dead_letter_headers
from connectors.registry import Registry, RegistryRefusedError, RegistryUnavailableError
from schemas.codec import Decoder, Encoder
from schemas.envelope import Envelope, headers, new_traceparent, parse_headers
from schemas.errors import ContractError, DealerIQError
from schemas.validate import problems
from streams.agents.settings import AgentSettings
from streams.agents.stage import Derived, Record, Stage
from streams.metrics import StageMeters

__all__ = ["BatchWorker", "Message", "StoppedError"]

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_DELIVERY_S = 30.0


class StoppedError(DealerIQError):
    """The process is stopping and the batch is not finished: its events come again after the restart."""

    remedy = "Nothing: the batch is read again."


class Message(Protocol):
    """The parts of a Kafka message that are needed here; Faust's own message has them."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Any


class _Delivery:
    """Counts what one batch still has in flight."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def __call__(self, error: Any, _message: Any) -> None:
        if error is not None:
            self.errors.append(str(error))


class BatchWorker:
    """Runs one stage on batches of messages. One thread at a time; `stop` may come from any."""

    def __init__(
        self, stage: Stage, registry: Registry, producer: Producer, settings: AgentSettings, meters: StageMeters
    ) -> None:
        self.stage = stage
        self._registry = registry
        self._producer = producer
        self._settings = settings
        self._meters = meters
        self._stopping = threading.Event()
        self._decoder = Decoder.of_topic(stage.source, registry.schema)
        self._encoder: Encoder | None = None
        down = (RegistryUnavailableError, RegistryRefusedError, KafkaUnavailableError)
        self._retried: tuple[type[Exception], ...] = (*down, *stage.retried)

    def stop(self) -> None:
        """Give up waiting for services that are down; `process` then raises StoppedError."""
        self._stopping.set()

    def process(self, messages: Sequence[Message]) -> None:
        """See every message through. Returns only when Kafka has acknowledged all that came of them.

        Raises StoppedError, after `stop`, when a service is still down; nothing then counts as done.
        """
        with self._meters.batch():
            if self._encoder is None:
                ids = self._retrying(lambda: self._registry.register_all([self.stage.target]))
                self._encoder = Encoder(self.stage.target, ids[f"{self.stage.target}-value"])
            dead: list[tuple[Message, str]] = []
            read: list[tuple[Message, Record]] = []
            for message in messages:
                if message.value is None:  # on a topic of events there is nothing that it could delete
                    self._meters.count("tombstone")
                    continue
                try:
                    read.append((message, self._read(message)))
                except ContractError as error:
                    dead.append((message, str(error)))
            done = self._handle(read, dead)
            self._retrying(lambda: self._deliver(done, dead))
            if done:
                self._retrying(
                    lambda: self.stage.after(
                        [record for _, record, _, _ in done], [each for _, _, each, _ in done]
                    ),
                    every_error=True,
                )
        self._count(done, dead)

    def _read(self, message: Message) -> Record:
        record = self._retrying(lambda: self._decoder.decode(message.value))
        found = problems(self.stage.source, record)
        if found:
            raise ContractError("; ".join(found))
        return record

    def _handle(
        self, read: list[tuple[Message, Record]], dead: list[tuple[Message, str]]
    ) -> list[tuple[Message, Record, Derived, bytes]]:
        """Handle the batch as one; where that fails, each event alone, so that one cannot take others along."""
        if not read:
            return []
        try:
            return self._attempt(read)
        except StoppedError:
            raise
        except Exception as error:
            _not_of_the_record(error)
            self._meters.error(error)
            _log.warning("batch_failed_trying_each_event", stage=self.stage.name, error=repr(error))
        done = []
        for each in read:
            try:
                done += self._attempt([each])
            except StoppedError:
                raise
            except Exception as error:
                _not_of_the_record(error)
                dead.append((each[0], str(error) or type(error).__name__))
        return done

    def _attempt(self, read: list[tuple[Message, Record]]) -> list[tuple[Message, Record, Derived, bytes]]:
        encoder = self._encoder
        assert encoder is not None
        records = [record for _, record in read]
        derived = self._retrying(lambda: self.stage.handle(records))
        return [
            (message, record, each, encoder.encode(each.record))
            for (message, record), each in zip(read, derived, strict=True)
        ]

    def _deliver(
        self, done: list[tuple[Message, Record, Derived, bytes]], dead: list[tuple[Message, str]]
    ) -> None:
        """Produce everything and wait until Kafka has it. Repeating it repeats the same ids."""
        delivery = _Delivery()
        target = self.stage.target
        for message, record, each, value in list(done):
            envelope: Envelope = parse_headers(message.headers)
            sent = headers(
                each.record["event_id"],
                target,
                f"dealeriq/{self.stage.name}",
                record["event_time"],
                each.subject,
                new_traceparent(envelope.traceparent),
            )
            try:
                self._producer.produce(target, value, key=each.key.encode(), headers=sent, on_delivery=delivery)
            except ContractError as error:  # the derived event is larger than its topic takes
                done.remove((message, record, each, value))
                dead.append((message, str(error)))
        for message, reason in dead:
            self._producer.produce(
                f"{message.topic}.dlq",
                message.value,
                key=message.key,
                headers=dead_letter_headers(
                    message.topic,
                    message.partition,
                    message.offset,
                    _pairs(message.headers),
                    reason,
                    self.stage.name,
                ),
                on_delivery=delivery,
            )
        left = self._producer.flush(_DELIVERY_S)
        if left or delivery.errors:
            reason = delivery.errors[0] if delivery.errors else f"{left} messages unacknowledged"
            raise KafkaUnavailableError(f"{self.stage.name} cannot produce: {reason}")

    def _retrying(self, act: Callable[[], _T], *, every_error: bool = False) -> _T:
        """Do it again with growing waits while a service is down."""
        wait = self._settings.retry_first_s
        while True:
            try:
                return act()
            except Exception as error:
                if not every_error and not isinstance(error, self._retried):
                    raise
                self._meters.error(error)
                known = translated(error)
                _log.warning(
                    "service_down_retrying",
                    stage=self.stage.name,
                    error=known.told if known else str(error),
                    wait_s=round(wait, 2),
                )
                if self._stopping.wait(wait * random.uniform(0.5, 1.0)):
                    raise StoppedError(f"{self.stage.name} stops while a service is down: {error}") from error
                wait = min(wait * 2, self._settings.retry_most_s)

    def _count(
        self, done: list[tuple[Message, Record, Derived, bytes]], dead: list[tuple[Message, str]]
    ) -> None:
        meters = self._meters
        outcomes: dict[str, int] = {}
        for _, _, each, _ in done:
            outcomes[each.outcome] = outcomes.get(each.outcome, 0) + 1
        for outcome, times in outcomes.items():
            meters.count(outcome, times)
        for message, reason in dead:
            _log.warning(
                "dead_letter",
                stage=self.stage.name,
                position=f"{message.topic}[{message.partition}]@{message.offset}",
                error=reason,
            )
        if dead:
            meters.count("dead_letter", len(dead))
        if done:
            now = time.time()
            meters.freshness(max(0.0, now - message.timestamp) for message, *_ in done)
            meters.event_time(max(record["event_time"] for _, record, _, _ in done))


def _not_of_the_record(error: Exception) -> None:
    """Raise again what no record is to blame for, such as a wrong setting: it must not make dead letters."""
    if isinstance(error, DealerIQError) and not isinstance(error, ContractError):
        raise error


def _pairs(raw: Any) -> list[tuple[str, bytes | None]]:
    pairs = raw.items() if hasattr(raw, "items") else raw or ()
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]
