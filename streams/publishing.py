"""Vectors that are computed on a schedule, compared with what was published, and sent where they moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from connectors.kafka import KafkaUnavailableError, Producer
from schemas.codec import Encoder
from schemas.envelope import headers, new_traceparent
from schemas.ids import event_id

__all__ = ["TOPIC", "SubjectVector", "VectorPublisher", "chunk_of", "moved"]

TOPIC = "embeddings"
_DELIVERY_S = 60.0


class SubjectVector(NamedTuple):
    """The vector of a product or a dealer, little-endian float32; empty bytes take it back."""

    type: str
    id: str
    vector: bytes
    encoder: str


def chunk_of(kind: str, subject_type: str, identity: str) -> str:
    """Return the key under which a subject's vector of a kind stands in the embeddings topic."""
    return event_id(kind, f"{subject_type}/{identity}")


def moved(one: bytes, other: bytes, tolerance: float) -> bool:
    """Return whether two vectors are further apart than the tolerance, as 1 - cosine."""
    first, second = np.frombuffer(one, "<f4"), np.frombuffer(other, "<f4")
    if len(first) != len(second):
        return True
    cosine = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return not 1 - cosine <= tolerance


class VectorPublisher:
    """Sends vectors of one kind, a chunk each.

    Args:
        producer: where they go.
        schema_id: the registry's id of the schema of embeddings.
        kind: as in the topic.
        source: who says it, in the envelope.
    """

    def __init__(self, producer: Producer, schema_id: int, kind: str, source: str) -> None:
        self._producer, self._kind, self._source = producer, kind, source
        self._encode = Encoder(TOPIC, schema_id).encode

    def publish(self, vectors: Sequence[SubjectVector]) -> None:
        """Produce all of them, a tombstone for each that is empty, and wait until Kafka has them.

        Raises KafkaUnavailableError; what was sent by then may come again, under the same keys.
        """
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(error)

        now_ms = time.time_ns() // 1_000_000
        for each in vectors:
            key = chunk_of(self._kind, each.type, each.id)
            value = self._encode(self._record(each, key, now_ms)) if each.vector else None
            identity = event_id("embedding", key, each.encoder, each.vector.hex(), now_ms)
            head = headers(identity, TOPIC, self._source, now_ms, f"{each.type}/{each.id}", new_traceparent())
            self._producer.produce(TOPIC, value, key=key.encode(), headers=head, on_delivery=delivered)
        left = self._producer.flush(_DELIVERY_S)
        if left or errors:
            why = errors[0].str() if errors else f"{left} messages unacknowledged"
            raise KafkaUnavailableError(f"embeddings were not kept: {why}")

    def _record(self, each: SubjectVector, key: str, now_ms: int) -> dict[str, Any]:
        return {
            "chunk_id": key, "subject_type": each.type, "subject_id": each.id, "chunk": 0, "kind": self._kind,
            "encoder": each.encoder, "dimension": len(each.vector) // 4, "vector": each.vector,
            "fingerprint": event_id(each.encoder, each.vector.hex()), "text": None, "dealer_id": None,
            "event_time": now_ms,
        }  # fmt: skip
