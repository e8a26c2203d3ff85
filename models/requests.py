"""Wishes to train a model again: `retraining.requests`, written and read."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException

from connectors.errors import translated
from connectors.kafka import KafkaUnavailableError, ensure_topics, producer
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from schemas.codec import Encoder
from schemas.envelope import headers
from schemas.ids import derived_id

__all__ = ["TOPIC", "send"]

TOPIC = "retraining.requests"


def send(
    kafka: KafkaSettings,
    registry: RegistrySettings,
    model: str,
    reason: str,
    text: str,
    *,
    evidence: Mapping[str, float] | None = None,
    cause: str | None = None,
) -> str:
    """Ask for a training; return the request's id. `reason` is drift, feedback, schedule or person.

    The same cause and reason give the same id. Raises KafkaUnavailableError, KafkaRefusedError.
    """
    ensure_topics(kafka, [TOPIC])
    encoder = Encoder(TOPIC, Registry(registry).register_all([TOPIC])[f"{TOPIC}-value"])
    cause = cause or uuid.uuid4().hex
    record: dict[str, Any] = {
        "event_id": derived_id(reason, model, 0, cause),
        "model": model,
        "reason": reason,
        "text": text,
        "evidence": dict(evidence or {}),
        "cause_id": cause,
        "event_time": time.time_ns() // 1_000_000,
    }
    failed: list[object] = []
    writer = producer(kafka, linger_ms=0)
    writer.produce(
        TOPIC,
        encoder.encode(record),
        key=model.encode(),
        headers=headers(record["event_id"], TOPIC, "/people", record["event_time"], model),
        on_delivery=lambda error, _: failed.append(error) if error is not None else None,
    )
    if writer.flush(60.0):
        raise KafkaUnavailableError("no broker confirmed the request in 60 s")
    if failed:
        raise translated(KafkaException(failed[0])) or KafkaUnavailableError(str(failed[0]))
    return str(record["event_id"])
