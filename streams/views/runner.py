"""The view runner: one small loop that keeps a store true to its topics.

Each partition starts from the position in the store, never from the consumer group. The runner takes all
partitions for itself and is no member of the group, so a broker that comes back has nobody to fence and no
rebalance is waited for: a second runner is kept out by the store, which refuses a position that is not its own
last one. Offsets are committed afterwards, each second and with the time as metadata, for whoever watches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, TopicPartition

from connectors.kafka import KafkaUnavailableError, Producer, consumer, dead_letter, producer
from connectors.log import get_logger
from connectors.settings import KafkaSettings
from schemas.errors import DealerIQError
from streams.assigned import Place, fetch, lag, partitions, patiently, watermarks
from streams.metrics import StageMeters
from streams.views.view import View

__all__ = ["PositionBeyondLogError", "ViewRunner"]

log = get_logger()
T = TypeVar("T")

_REPORT_S = 1.0


class PositionBeyondLogError(DealerIQError):
    """A store holds a position that its topic has not reached: one of the two was made anew."""

    remedy = "Point the store and Kafka at the same system, or empty the store so that it is filled again."
    exit_code = 7


class ViewRunner:
    """Applies a view's topics in batches until stopped.

    `batch_records` bounds a batch; one that is not full goes after `poll_ms`, so that a quiet topic is readable
    at once. `group` is the consumer group (`dealeriq-<view>`) that offsets are committed for. While the store
    is away batches wait, and nothing is fetched beyond what the client holds already.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        view: View,
        *,
        stop: threading.Event,
        batch_records: int = 5_000,
        poll_ms: int = 5,
        group: str | None = None,
    ) -> None:
        self._kafka, self._view, self._stop = kafka, view, stop
        self._group = group or f"dealeriq-{view.name}"
        self._batch_records, self._poll_s = batch_records, poll_ms / 1000
        self._meters = StageMeters(view.name)
        self._next: dict[Place, int] = {}
        self._refused: set[tuple[str, int, int]] = set()

    def run(self) -> None:
        """Run until `stop` is set. Raises PositionBeyondLogError and what the view does not ask to retry."""
        source = consumer(self._kafka, self._group)
        letters = producer(self._kafka)
        self._view.letters = partial(self._refuse, letters)
        try:
            source.assign(self._places(source))
            reported, more = time.monotonic(), False
            while not self._stop.is_set():
                messages = fetch(source, self._batch_records, self._poll_s, self._meters, idle=not more)
                if messages:
                    self._apply(messages)
                more = self._patiently(self._view.spare)
                if time.monotonic() - reported >= _REPORT_S:
                    self._patiently(self._view.tick)
                    self._report(source)
                    reported = time.monotonic()
        finally:
            letters.flush(10)
            source.close()

    def _places(self, source: Consumer) -> list[TopicPartition]:
        """Where to go on in each partition; nowhere where the runner is stopped before every topic is there."""
        places = partitions(self._kafka, self._view.topics, self._view.name, self._stop)
        held = (self._patiently(self._view.positions) or {}) if places else {}
        self._next = {place: self._start(source, place, held.get(place)) for place in places}
        return [TopicPartition(*where, offset) for where, offset in self._next.items()]

    def _start(self, source: Consumer, place: Place, held: int | None) -> int:
        low, high = watermarks(source, self._kafka, place)
        if held is not None and held > high:
            raise PositionBeyondLogError(
                f"{place[0]}[{place[1]}]: {self._view.name} holds position {held}, and the topic ends at {high}"
            )
        return low if held is None else max(held, low)

    def _apply(self, messages: Sequence[Any]) -> None:
        with self._meters.batch():
            self._patiently(lambda: self._view.apply(messages))
        self._meters.count("applied", len(messages) - len(self._refused))
        self._refused.clear()
        for message in messages:
            self._next[message.topic(), message.partition()] = message.offset() + 1

    def _refuse(self, letters: Producer, unreadable: Sequence[tuple[Any, Exception]]) -> None:
        """Keep dead letters; of a batch that is applied again, each once."""
        for message, reason in unreadable:
            place = message.topic(), message.partition(), message.offset()
            if place not in self._refused:
                dead_letter(letters, message, reason, self._view.name)
                self._refused.add(place)
                self._meters.count("dead_letter")
        while letters.flush(10):
            if self._stop.is_set():
                raise KafkaUnavailableError("dead letters cannot be kept, and the view is to stop")
            log.warning("no broker takes the dead letters, waiting", view=self._view.name)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do what a store may refuse for a while. Raises its last refusal where the runner is stopped first."""
        return patiently(action, self._view.retried, self._view.name, self._meters, self._stop.wait)

    def _report(self, source: Consumer) -> None:
        lag(source, self._next, self._meters)
        now = f"{time.time_ns() // 1_000_000}"
        if self._next:
            offsets = [TopicPartition(*place, offset, metadata=now) for place, offset in self._next.items()]
            source.commit(offsets=offsets, asynchronous=True)
