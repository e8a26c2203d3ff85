"""Fused vectors on their way into `embeddings`: each lot is one transaction.

A process that takes over ends what another has left open, and shuts that one out, before it reads what is
there. So what it reads is all that was ever published.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaException

from connectors.kafka import KafkaUnavailableError, Producer, producer
from connectors.settings import KafkaSettings
from connectors.transactions import is_fenced, persistently
from models.embedding.topics import FIRST
from models.fusion import HYBRID
from schemas.codec import Encoder
from schemas.envelope import headers, new_traceparent
from schemas.errors import DealerIQError
from schemas.ids import event_id
from streams.publishing import chunk_of
from streams.transactional import FencedError

__all__ = ["Fused", "HybridPublisher", "key_of"]

_SOURCE = "dealeriq/hybrid-view"
_CALL_S = 30.0
_TIMEOUT_MS = 60_000


class Fused(NamedTuple):
    """What is to be published of a product: its vector, little-endian float32, or none of it any more.

    `mark` is the fingerprint of its parts (of a product that is taken back, of the ones before), `time_ms`
    their newest event time.
    """

    product: str
    encoder: str
    mark: str
    time_ms: int
    vector: bytes | None


def key_of(product: str) -> str:
    """Return the key of a product's fused vector in the embeddings topic."""
    return chunk_of(HYBRID, "product", product)


class HybridPublisher:
    """Publishes as the only one of its name; `schema_id` returns the registry's id of embeddings."""

    def __init__(self, kafka: KafkaSettings, schema_id: Callable[[], int], name: str) -> None:
        self._kafka, self._schema_id, self._name = kafka, schema_id, name
        self._producer: Producer | None = None
        self._encoder: Encoder | None = None

    def open(self) -> None:
        """Be the only one from now on. Raises KafkaUnavailableError, FencedError."""
        if self._producer is None:
            opened = producer(
                self._kafka, transactional_id=self._name, transaction_timeout_ms=_TIMEOUT_MS, linger_ms=2
            )
            self._call(opened, partial(opened.init_transactions, _CALL_S))
            self._producer = opened

    def publish(self, lot: Sequence[Fused]) -> list[int]:
        """Publish all of it or nothing; return at which offset each stands.

        What has no vector is a tombstone. Raises KafkaUnavailableError, FencedError, what the registry raises.
        """
        if self._encoder is None:
            self._encoder = Encoder(FIRST, self._schema_id())
        self.open()
        writer = self._producer
        assert writer is not None
        offsets = [-1] * len(lot)
        errors: list[Any] = []

        def delivered(at: int, error: Any, message: Any) -> None:
            if error is not None:
                errors.append(error)
            else:
                offsets[at] = message.offset()

        try:
            self._call(writer, writer.begin_transaction)
            for at, each in enumerate(lot):
                self._produce(writer, each, partial(delivered, at))
            left = self._call(writer, partial(writer.flush, _CALL_S))
            if errors:
                raise KafkaException(errors[0])
            if left:
                raise KafkaUnavailableError(f"{left} fused vectors were not taken in time")
            self._call(writer, partial(writer.commit_transaction, _CALL_S))
        except BaseException as error:
            self._producer = None  # the next one ends what this one has left open
            told = self._translated(writer, error) if isinstance(error, KafkaException) else None
            with contextlib.suppress(KafkaException):
                writer.abort_transaction(_CALL_S)
            if told is not None:
                raise told from error
            raise
        return offsets

    def _produce(self, writer: Producer, each: Fused, delivered: Callable[[Any, Any], None]) -> None:
        assert self._encoder is not None
        key = key_of(each.product)
        gone = each.vector is None
        time_ms = time.time_ns() // 1_000_000 if gone else each.time_ms
        identity = event_id("embedding", key, None if gone else each.encoder, each.mark)
        sent = headers(identity, FIRST, _SOURCE, time_ms, f"product/{each.product}", new_traceparent())
        value = None if each.vector is None else self._encoder.encode(_record(each, key, each.vector))
        writer.produce(FIRST, value, key=key.encode(), headers=sent, on_delivery=delivered)

    def _call(self, writer: Producer, call: Callable[[], Any]) -> Any:
        try:
            return persistently(call)
        except KafkaException as error:
            raise self._translated(writer, error) from error

    def _translated(self, writer: Producer, error: KafkaException) -> DealerIQError:
        if is_fenced(writer, error):
            return FencedError(f"another process took over {self._name}")
        return KafkaUnavailableError(f"fused vectors were not kept: {error.args[0].str()}")


def _record(each: Fused, key: str, vector: bytes) -> dict[str, Any]:
    return {
        "chunk_id": key, "subject_type": "product", "subject_id": each.product, "chunk": 0, "kind": HYBRID,
        "encoder": each.encoder, "dimension": len(vector) // 4, "vector": vector, "fingerprint": each.mark,
        "text": None, "dealer_id": None, "event_time": each.time_ms,
    }  # fmt: skip
