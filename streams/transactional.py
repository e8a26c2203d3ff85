"""A host for stages whose output must be there exactly once: output and position commit in one transaction.

Both are in Kafka (KIP-98, KIP-447), so whoever reads committed records sees each batch's output once, through
any crash. All partitions are assigned, and nobody waits for a group: a second process of the same name fences
the first, and ends its open transaction.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.errors import translated
from connectors.kafka import KafkaUnavailableError, Producer, consumer, producer, retrying
from connectors.log import get_logger
from connectors.settings import KafkaSettings
from connectors.transactions import is_fenced, persistently
from schemas.errors import DealerIQError
from streams.assigned import Place, fetch, lag, partitions, patiently, watermarks
from streams.metrics import StageMeters

__all__ = ["FencedError", "Outgoing", "Stage", "TransactionalRunner"]

log = get_logger()

_CALL_S = 30.0
_TIMEOUT_MS = 60_000
_REPORT_S = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be written."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Stage(Protocol):
    """A function of a batch. After a crash or an abort it is given the same messages again."""

    @property
    def topics(self) -> Sequence[str]:
        """The topics that it reads."""

    def handle(self, messages: Sequence[Any]) -> list[Outgoing]:
        """Return what confluent-kafka messages, in offset order per partition, come to."""


class FencedError(DealerIQError):
    """Another process of the same name writes now; this one must not."""

    remedy = "Let one process of a name run at a time; nothing was lost or repeated."
    exit_code = 4


class _AbortedError(Exception):
    """The transaction was aborted; what it read is to be read again."""


class TransactionalRunner:
    """Runs a stage until `stop` is set.

    Args:
        name: of the stage in metrics; the transactional id and the consumer group are `group`.
        retried: errors of the stage that go away by themselves: the batch is tried again with backoff.
        since_s: where there is no position yet, records of the last so many seconds are read; None: all.
        commit_ms: how long a transaction stays open, and so what it adds to the way of a record.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        stage: Stage,
        *,
        name: str,
        group: str,
        stop: threading.Event,
        retried: tuple[type[Exception], ...] = (),
        batch_records: int = 5_000,
        poll_ms: int = 5,
        commit_ms: int = 100,
        since_s: float | None = None,
    ) -> None:
        self._kafka, self._stage, self._name, self._group, self._stop = kafka, stage, name, group, stop
        self._retried: tuple[type[Exception], ...] = (*retried, KafkaUnavailableError)
        self._batch, self._poll_s, self._commit_s = batch_records, poll_ms / 1000, commit_ms / 1000
        self._since_s = since_s
        self._meters = StageMeters(name)
        self._next: dict[Place, int] = {}

    def run(self) -> None:
        """Run until stopped. Raises FencedError, and what the stage does not ask to retry."""
        wait_s = _FIRST_WAIT_S
        while not self._stop.is_set():
            try:
                self._session()
            except (_AbortedError, KafkaUnavailableError) as reason:
                self._meters.error(reason)
                log.warning("transaction aborted, reading again", stage=self._name, reason=str(reason))
                self._stop.wait(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _session(self) -> None:
        """Go on from the committed position, with clients of its own, until one of them fails."""
        writer = producer(
            self._kafka, transactional_id=self._group, transaction_timeout_ms=_TIMEOUT_MS, linger_ms=2
        )
        source = consumer(self._kafka, self._group)
        began = False
        try:
            self._call(writer, partial(writer.init_transactions, _CALL_S))
            source.assign(self._places(source))
            reported = time.monotonic()
            while not self._stop.is_set():
                messages = self._fetch(source)
                if messages:
                    began = True
                    self._transaction(writer, source, messages)
                    began = False
                if time.monotonic() - reported >= _REPORT_S:
                    lag(source, self._next, self._meters)
                    reported = time.monotonic()
        finally:
            if began:
                with contextlib.suppress(KafkaException):
                    writer.abort_transaction(_CALL_S)
            source.close()

    def _transaction(self, writer: Producer, source: Consumer, messages: list[Any]) -> None:
        """One transaction: this batch, and what comes until it is time to commit."""
        self._call(writer, writer.begin_transaction)
        ends = time.monotonic() + self._commit_s
        moved: dict[Place, int] = {}
        while True:
            with self._meters.batch():
                for each in self._patiently(partial(self._stage.handle, messages)):
                    self._call(
                        writer, partial(writer.produce, each.topic, each.value, each.key, headers=each.headers)
                    )
            for message in messages:
                moved[message.topic(), message.partition()] = message.offset() + 1
            self._call(writer, partial(writer.poll, 0))  # it, too, may be the first to hear of a newer writer
            left_s = ends - time.monotonic()
            messages = self._fetch(source) if left_s > 0 and not self._stop.is_set() else []
            if not messages and (left_s <= self._poll_s or self._stop.is_set()):
                break
            if not messages:
                self._stop.wait(min(self._poll_s, left_s))
        offsets = [TopicPartition(*place, offset) for place, offset in moved.items()]
        position = partial(
            writer.send_offsets_to_transaction, offsets, source.consumer_group_metadata(), _CALL_S
        )
        self._call(writer, position)
        self._call(writer, partial(writer.commit_transaction, _CALL_S))
        self._next |= moved

    def _places(self, source: Consumer) -> list[TopicPartition]:
        known = partitions(self._kafka, self._stage.topics, self._name, self._stop)
        if not known:
            return []
        places = [TopicPartition(*each) for each in known]
        committed = retrying(lambda: source.committed(places, timeout=_CALL_S), self._kafka)
        new = [place for place in committed if place.offset < 0]
        begin = {(each.topic, each.partition): each.offset for each in self._beginning(source, new)}
        self._next = {}
        for place in committed:
            where = place.topic, place.partition
            low, high = watermarks(source, self._kafka, where)
            offset = place.offset if place.offset >= 0 else begin[where]
            self._next[where] = high if offset < 0 else max(offset, low)
        return [TopicPartition(*where, offset) for where, offset in self._next.items()]

    def _beginning(self, source: Consumer, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Where to begin without a position: -1 stands for the end."""
        if not places:
            return []
        if self._since_s is None:
            return [TopicPartition(each.topic, each.partition, 0) for each in places]
        at_ms = int((time.time() - self._since_s) * 1000)
        asked = [TopicPartition(each.topic, each.partition, at_ms) for each in places]
        return list(retrying(lambda: source.offsets_for_times(asked, timeout=_CALL_S), self._kafka))

    def _fetch(self, source: Consumer) -> list[Any]:
        return fetch(source, self._batch, self._poll_s, self._meters)

    def _patiently(self, action: Callable[[], list[Outgoing]]) -> list[Outgoing]:
        """Do what a store may refuse for a while, and abort before the transaction times out by itself."""
        since = time.monotonic()

        def wait(wait_s: float) -> bool:
            return self._stop.wait(wait_s) or time.monotonic() - since > _TIMEOUT_MS / 2000

        try:
            return patiently(action, self._retried, self._name, self._meters, wait)
        except self._retried as failure:
            known = translated(failure)
            raise _AbortedError(known.told if known else str(failure)) from failure

    def _call(self, writer: Producer, call: Callable[[], object]) -> None:
        """Do something with the broker. Raises _AbortedError, FencedError, KafkaException."""
        try:
            persistently(call)
        except KafkaException as error:
            if is_fenced(writer, error):
                raise FencedError(f"another process took over {self._group}") from error
            reason = error.args[0]
            if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            raise _AbortedError(reason.str()) from error
