"""Wishes to train a model again: `retraining.requests`, written and read."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from connectors.kafka import ensure_topics
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from models.topic_log import TopicLog
from models.written import Writer
from schemas.ids import derived_id

__all__ = ["TOPIC", "RequestLog", "request_id", "send"]

TOPIC = "retraining.requests"


def request_id(model: str, reason: str, cause: str) -> str:
    """Return the id of a request: the same reason and cause are the same request."""
    return derived_id(reason, model, 0, cause)


def send(
    kafka: KafkaSettings,
    registry: RegistrySettings,
    model: str,
    reason: str,
    text: str,
    *,
    evidence: Mapping[str, float] | None = None,
    cause: str | None = None,
    at_ms: int | None = None,
) -> str:
    """Ask for a training; return the request's id. `reason` is drift, feedback, schedule or person.

    `at_ms` is when (wall clock); None: now. The same cause and reason give the same id. Raises
    KafkaUnavailableError, KafkaRefusedError.
    """
    ensure_topics(kafka, [TOPIC])
    cause = cause or uuid.uuid4().hex
    record: dict[str, Any] = {
        "event_id": request_id(model, reason, cause),
        "model": model,
        "reason": reason,
        "text": text,
        "evidence": dict(evidence or {}),
        "cause_id": cause,
        "event_time": time.time_ns() // 1_000_000 if at_ms is None else at_ms,
    }
    schema_id = Registry(registry).register_all([TOPIC])[f"{TOPIC}-value"]
    source = "/people" if reason == "person" else "/models/monitors"
    Writer(kafka, TOPIC, schema_id, source).write(model, record)
    return str(record["event_id"])


class RequestLog(TopicLog):
    """Every request that the topic still holds; catch up before reading."""

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings) -> None:
        super().__init__(kafka, registry, TOPIC)
        self.ids: set[str] = set()
        self.asked_ms: dict[tuple[str, str], int] = {}
        """When (model, reason) was asked for last, wall clock, ms since the epoch."""

    def catch_up(self) -> None:
        """Read what was written since; what cannot be read is the trainer's dead letter.

        Raises KafkaUnavailableError, RegistryUnavailableError.
        """
        for _, record in self.fresh():
            self.ids.add(record["event_id"])
            self.asked_ms[record["model"], record["reason"]] = record["event_time"]
