"""The process `label-view`: feedback, joined to what it is about."""

from __future__ import annotations

import threading

from connectors.kafka import ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from streams.labels.store import LabelStore
from streams.views.label_view import LabelView
from streams.views.runner import ViewRunner

__all__ = ["run"]

_BATCH = 1_000  # a batch waits for Kafka and twice for Redis: so many share that


def run(settings: Settings, stop: threading.Event) -> None:
    """Join feedback to what it is about, as labels until `stop`."""
    project = settings.features.project
    registry = Registry(settings.registry)
    view = LabelView(
        LabelStore(connect(settings.redis), project, settings.agents.subject_days),
        producer(settings.kafka, linger_ms=0),
        registry.schema,
        lambda: registry.register_all(["labels"])["labels-value"],
    )
    ensure_topics(settings.kafka, [*view.topics, *(f"{each}.dlq" for each in view.topics), "labels"])
    ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=_BATCH,
        poll_ms=settings.features.poll_ms,
        group=f"{project}-{view.name}",
    ).run()
