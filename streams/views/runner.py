"""The view runner: one small loop that keeps a store true to its topics.

Each partition starts from the position in the store, never from the consumer group; the group's offsets are
committed afterwards for the sake of lag monitors alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.errors import translated
from connectors.kafka import consumer, dead_letter, producer
from connectors.settings import KafkaSettings
from schemas.errors import DealerIQError
from streams.metrics import StageMeters
from streams.views.view import View

__all__ = ["PositionBeyondLogError", "ViewRunner"]

log = structlog.get_logger()
T = TypeVar("T")

_REPORT_S = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


class PositionBeyondLogError(DealerIQError):
    """A store holds a position that its topic has not reached: one of the two was made anew."""

    remedy = "Point the store and Kafka at the same system, or empty the store so that it is filled again."
    exit_code = 7


class ViewRunner:
    """Applies a view's topics in batches until stopped.

    `batch_records` bounds a batch; one that is not full goes after `poll_ms`, so that a quiet topic is readable
    at once. `group` is the consumer group (`dealeriq-<view>`). While the store is away batches wait, and
    nothing is fetched beyond them; the group is kept.
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
        self._failure: BaseException | None = None
        self._next: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        """Run until `stop` is set. Raises PositionBeyondLogError and what the view does not ask to retry."""
        source = consumer(self._kafka, self._group, f"{self._group}-0")
        letters = producer(self._kafka)
        try:
            source.subscribe(list(self._view.topics), on_assign=self._assign, on_revoke=self._revoke)
            reported = time.monotonic()
            while not self._stop.is_set():
                messages = self._fetch(source)
                if messages:
                    self._apply(source, letters, messages)
                if time.monotonic() - reported >= _REPORT_S:
                    self._patiently(self._view.tick, source)
                    self._report(source)
                    reported = time.monotonic()
        finally:
            letters.flush(10)
            source.close()

    def _fetch(self, source: Consumer) -> list[Any]:
        found = source.consume(self._batch_records, self._poll_s)
        if self._failure is not None:
            raise self._failure
        good = []
        for message in found:
            error = message.error()
            if error is None:
                good.append(message)
            elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise KafkaException(error)
            elif error.code() != KafkaError._PARTITION_EOF:
                self._meters.error(error.name())
        return good

    def _apply(self, source: Consumer, letters: Any, messages: Sequence[Any]) -> None:
        with self._meters.batch():
            unreadable = self._patiently(lambda: self._view.apply(messages), source)
        for message, reason in unreadable or ():
            dead_letter(letters, message, reason, self._view.name)
        if unreadable:
            letters.flush(10)
            self._meters.count("dead_letter", len(unreadable))
        self._meters.count("applied", len(messages) - len(unreadable or ()))
        for message in messages:
            self._next[message.topic(), message.partition()] = message.offset() + 1

    def _patiently(self, action: Callable[[], T], source: Consumer | None) -> T | None:
        """Do what a store may refuse for a while; None where the runner was stopped before it succeeded."""
        wait_s = _FIRST_WAIT_S
        paused: list[TopicPartition] = []
        while True:
            try:
                result = action()
                if paused and source is not None:
                    source.resume(paused)
                return result
            except self._view.retried as failure:
                self._meters.error(failure)
                known = translated(failure)
                log.warning(
                    "store away, trying again",
                    view=self._view.name,
                    error=known.told if known else str(failure),
                    wait_s=wait_s,
                )
                if source is not None:
                    # Paused partitions let the consumer be polled, which keeps its place in the group.
                    if not paused:
                        paused = source.assignment()
                        source.pause(paused)
                    source.poll(0)
                if self._stop.wait(wait_s):
                    raise
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _assign(self, source: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            held = self._patiently(self._view.positions, None) or {}
            for each in partitions:
                offset = held.get((each.topic, each.partition))
                low, high = source.get_watermark_offsets(TopicPartition(each.topic, each.partition), timeout=10)
                if offset is not None and offset > high:
                    raise PositionBeyondLogError(
                        f"{each.topic}[{each.partition}]: {self._view.name} holds position {offset}, "
                        f"and the topic ends at {high}"
                    )
                each.offset = low if offset is None else max(offset, low)
                self._next[each.topic, each.partition] = each.offset
            source.assign(partitions)
        except BaseException as failure:
            # Raised again by the loop: librdkafka swallows what a callback raises.
            self._failure = failure

    def _revoke(self, source: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            self._next.pop((each.topic, each.partition), None)

    def _report(self, source: Consumer) -> None:
        offsets = []
        for (topic, partition), offset in self._next.items():
            where = TopicPartition(topic, partition, offset)
            _, high = source.get_watermark_offsets(where, cached=True)
            if high >= 0:
                self._meters.lag(topic, partition, max(high - offset, 0))
            offsets.append(where)
        if offsets:
            source.commit(offsets=offsets, asynchronous=True)
