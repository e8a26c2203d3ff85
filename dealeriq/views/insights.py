"""The process `insight-view`: insights, readable by dealer."""

from __future__ import annotations

import threading

from connectors.kafka import ensure_topics
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from streams.insights.store import InsightStore
from streams.views.insight_view import InsightView
from streams.views.runner import ViewRunner

__all__ = ["run"]


def run(settings: Settings, stop: threading.Event) -> None:
    """Keep insights readable until `stop`."""
    project, insights = settings.features.project, settings.insights
    store = InsightStore(connect(settings.redis), project, keep=insights.keep, keep_days=insights.keep_days)
    view = InsightView(store, Registry(settings.registry).schema)
    ensure_topics(settings.kafka, [*view.topics, *(f"{each}.dlq" for each in view.topics)])
    ViewRunner(
        settings.kafka, view, stop=stop, poll_ms=settings.features.poll_ms, group=f"{project}-{view.name}"
    ).run()
