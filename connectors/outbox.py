"""A transactional way into Kafka that remembers how far it came.

Messages and the ledger's entry commit together: after a kill -9 the next outbox of the same name reads the
entry and goes on behind the last committed message. Consumers of committed records see each message once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaException
from confluent_kafka import Producer as RawProducer

from connectors.kafka import producer
from connectors.ledger import TOPIC, LedgerEntry, read_ledger
from connectors.messages import Headers, Messages
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from connectors.transactions import is_fenced, persistently
from schemas.codec import Encoder
from schemas.envelope import headers
from schemas.errors import DealerIQError

__all__ = ["Outbox", "OutboxFencedError", "OutboxInterruptedError"]

_TIMEOUT_S = 30.0


class OutboxInterruptedError(DealerIQError):
    """The transaction was aborted; nothing of it is seen. Open a new outbox and go on from its entry."""

    remedy = "Try again: what was committed is kept, and nothing is repeated."
    exit_code = 4


class OutboxFencedError(DealerIQError):
    """Another process opened the outbox of the same name, and now owns it."""

    remedy = "Let the other one finish, or stop it; nothing was lost or repeated."
    exit_code = 4


class Outbox:
    """One open outbox. `entry` is the last committed ledger entry of `name`, or None.

    Opening fences an earlier process of the same name and ends its open transaction. Raises
    OutboxInterruptedError when the brokers do not answer."""

    def __init__(
        self, kafka: KafkaSettings, registry: RegistrySettings, name: str, *, linger_ms: int = 5
    ) -> None:
        self._name = name
        self._producer = producer(
            kafka, transactional_id=f"dealeriq-{name}", transaction_timeout_ms=60_000, linger_ms=linger_ms
        )
        # The plain method: the subclass's checks cost a third of the speed, and rows are checked before.
        self._produce = partial(RawProducer.produce, self._producer)
        self._ids = Registry(registry).register_all([TOPIC])
        self._encoder = Encoder(TOPIC, self._ids[f"{TOPIC}-value"])
        self._open = False
        try:
            self._calling(partial(self._producer.init_transactions, _TIMEOUT_S))
            self.entry: LedgerEntry | None = read_ledger(kafka, registry).get(name)
        except BaseException:
            self.close()
            raise

    def send(self, messages: Messages, start: int = 0, stop: int | None = None) -> None:
        """Queue messages of one topic, in the transaction; waits while the queue is full."""
        if not self._open:
            self._begin()
        stop = len(messages.values) if stop is None else stop
        produce, name = self._produce, messages.topic
        rows = zip(
            messages.values[start:stop], messages.keys[start:stop], messages.headers[start:stop], strict=True
        )
        try:
            for value, key, row_headers in rows:
                try:
                    produce(name, value, key, -1, None, None, 0, row_headers)
                except BufferError:
                    self._wait_and_send(name, value, key, row_headers)
        except KafkaException as error:
            raise self._translated(error) from error

    def send_mixed(self, parts: Sequence[tuple[Messages, int]], order: Sequence[int]) -> None:
        """Queue messages of several topics, interleaved: `order` names for each one the part it comes from.

        A part is its messages and the index of the next one.
        """
        if len(parts) == 1:
            messages, start = parts[0]
            self.send(messages, start, start + len(order))
            return
        if not self._open:
            self._begin()
        produce = self._produce
        streams = [
            (m.topic, iter(zip(m.values[at:], m.keys[at:], m.headers[at:], strict=True))) for m, at in parts
        ]
        try:
            for index in order:
                name, rows = streams[index]
                value, key, row_headers = next(rows)
                try:
                    produce(name, value, key, -1, None, None, 0, row_headers)
                except BufferError:
                    self._wait_and_send(name, value, key, row_headers)
        except KafkaException as error:
            raise self._translated(error) from error

    def commit(self, entry: LedgerEntry) -> None:
        """Commit what was sent together with the entry.

        Raises OutboxInterruptedError (nothing of the transaction is seen) or OutboxFencedError.
        """
        if not self._open:
            self._begin()
        record = entry.record()
        envelope = headers(
            f"{entry.import_id}/{entry.rows_read}", TOPIC, "/importer", record["event_time"], entry.import_id
        )
        value = self._encoder.encode(record)
        self._wait_and_send(TOPIC, value, entry.import_id.encode(), envelope)
        self._calling(partial(self._producer.commit_transaction, _TIMEOUT_S))
        self._open = False
        self.entry = entry

    def close(self) -> None:
        """Abort what is open and let go."""
        if self._open:
            with contextlib.suppress(KafkaException):
                self._producer.abort_transaction(_TIMEOUT_S)
            self._open = False
        self._producer.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._translated(error) from error
        self._open = True

    def _wait_and_send(self, name: str, value: bytes | None, key: bytes, row_headers: Headers) -> None:
        while True:
            try:
                self._produce(name, value, key, -1, None, None, 0, row_headers)
                return
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                raise self._translated(error) from error

    def _calling(self, call: partial[None]) -> None:
        try:
            persistently(call)
        except KafkaException as error:
            raise self._translated(error) from error

    def _translated(self, error: KafkaException) -> DealerIQError:
        if is_fenced(self._producer, error):
            return OutboxFencedError(f"another process took over {self._name}")
        return OutboxInterruptedError(f"a transaction of {self._name} was interrupted: {error.args[0].str()}")
