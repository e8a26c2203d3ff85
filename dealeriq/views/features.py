"""The process `feature-view`: the tile topics, folded into the online store."""

from __future__ import annotations

import threading

from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from features.plan import load as load_plan
from schemas.catalogue import topic
from streams.views.feature_view import FeatureView
from streams.views.runner import ViewRunner

__all__ = ["run"]


def run(settings: Settings, stop: threading.Event) -> None:
    """Fold the tile topics into the online store until `stop`."""
    view = FeatureView(
        connect(settings.redis),
        load_plan(project=settings.features.project),
        Registry(settings.registry).schema,
        lambda name: settings.kafka.partitions_of(topic(name)),
    )
    runner = ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=settings.features.batch_records,
        poll_ms=settings.features.poll_ms,
        group=f"{settings.features.project}-{view.name}",
    )
    runner.run()
