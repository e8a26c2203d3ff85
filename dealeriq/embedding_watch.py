"""The watch over vectors: each window that closed is held against the reference, and told.

It runs beside the trainer, in its process. Judging is a short process of its own, started only when vectors
came; what was judged is in `embeddings.monitors`, so a restart judges nothing twice.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any

from confluent_kafka import TopicPartition
from prometheus_client import Counter, Gauge

from connectors.kafka import consumer, ensure_topics
from connectors.lake import lake_at
from connectors.whole import end_offset
from dealeriq.settings import Settings
from dealeriq.training import child
from dealeriq.watching import Stillness, keep_looking
from models.embedding.observation import Seen, SeenLog
from models.embedding.topics import TOPICS
from schemas.catalogue import topic
from streams.metrics import REGISTRY, StageMeters

__all__ = ["EmbeddingWatch"]

_SHIFT = Gauge(
    "dealeriq_embedding_shift",
    "Squared discrepancy of the last window's vectors from the reference.",
    ["kind", "encoder"],
    registry=REGISTRY,
)
_LIMIT = Gauge(
    "dealeriq_embedding_shift_limit", "What chance alone gives.", ["kind", "encoder"], registry=REGISTRY
)
_ALARMS = Counter(
    "dealeriq_embedding_alarms",
    "Windows whose vectors are not those of the reference.",
    ["kind", "encoder"],
    registry=REGISTRY,
)


class EmbeddingWatch:
    """One watch of a system; `run` ends when `stop` is set."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings, self._stop = settings, stop
        self._meters = StageMeters("embedding-watch")
        self._ends = Stillness()

    def run(self) -> None:
        """Look every `embeddings.every_s`; what is away is tried again the next time."""
        keep_looking(self.look, self._settings.embeddings.every_s, self._meters, self._stop)

    def look(self) -> list[Seen]:
        """Judge what closed; return what was seen. Raises DealerIQError."""
        if not self._moved():
            return []
        settings = self._settings
        with SeenLog(settings.kafka, settings.registry) as log:
            lake = lake_at(settings.lake, settings.data_dir)
            job: dict[str, Any] = {
                "lake": lake.url, "lake_options": dict(lake.options),
                "settings": settings.embeddings.model_dump(mode="json"),
                "done": [each.event_id for each in log.catch_up()],
            }  # fmt: skip
            most_s = settings.embeddings.most_s
            rows = child("embedding.watch", job, most_s=most_s, stop=self._stop, python=sys.executable)
            fresh = [Seen(**each) for each in rows]
            for each in fresh:
                log.write(each)
                self._tell(each)
        return fresh

    def _moved(self) -> bool:
        """Whether vectors came since the last looks."""
        kafka = self._settings.kafka
        ensure_topics(kafka, TOPICS)
        with contextlib.closing(consumer(kafka, "dealeriq-embedding-watch")) as ends:
            now = [
                end_offset(ends, TopicPartition(name, number))
                for name in TOPICS
                for number in range(kafka.partitions_of(topic(name)))
            ]
        return self._ends.moved(now)

    def _tell(self, seen: Seen) -> None:
        self._meters.count(f"judged_{seen.monitor}")
        self._meters.event_time(seen.window_end)
        if seen.monitor == "shift":
            for gauge, value in ((_SHIFT, seen.value), (_LIMIT, seen.limit)):
                if value is not None:
                    gauge.labels(seen.kind, seen.encoder).set(value)
        if seen.alarm:
            _ALARMS.labels(seen.kind, seen.encoder).inc()
            print(seen.text, file=sys.stderr, flush=True)
