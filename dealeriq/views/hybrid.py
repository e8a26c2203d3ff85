"""The process `hybrid-view`: the vectors of each product, fused into one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

from connectors.kafka import ensure_topics
from connectors.redis import connect
from connectors.registry import Registry
from connectors.settings import KafkaSettings
from connectors.whole import WholeTopic
from dealeriq.kinds import weights_of
from dealeriq.settings import Settings
from models.embedding.topics import TOPICS, Homes
from streams.hybrid.publisher import HybridPublisher
from streams.hybrid.store import HybridStore
from streams.views.hybrid_view import HybridView
from streams.views.runner import ViewRunner
from streams.views.view import Position

__all__ = ["run"]

_READ_S = 600.0


def run(settings: Settings, stop: threading.Event) -> None:
    """Keep fused vectors true to their parts until `stop`.

    Raises SettingsError, HybridStoreAwayError, HybridStoreDamagedError, FencedError, PositionBeyondLogError.
    """
    hybrid, registry = settings.hybrid, Registry(settings.registry)
    weights = weights_of(settings)
    ensure_topics(settings.kafka, TOPICS)
    group = f"{settings.features.project}-hybrid-view"
    with contextlib.closing(HybridStore(hybrid.folder or settings.data_dir / "hybrid")) as store:
        view = HybridView(
            store,
            HybridPublisher(
                settings.kafka, lambda: registry.register_all(["embeddings"])["embeddings-value"], group
            ),
            registry.schema,
            weights,
            Homes(connect(settings.redis)).in_use,
            lambda position: _unread(settings.kafka, position, hybrid.batch_records),
        )
        ViewRunner(
            settings.kafka,
            view,
            stop=stop,
            batch_records=hybrid.batch_records,
            poll_ms=hybrid.poll_ms,
            group=group,
        ).run()


def _unread(kafka: KafkaSettings, position: Position, most: int) -> Iterator[list[Any]]:
    """Yield what stands in the topics from a position on, in lots, to the end that they have now."""
    for name in TOPICS:
        start = {number: offset for (topic, number), offset in position.items() if topic == name}
        with contextlib.closing(WholeTopic(kafka, name, "dealeriq-hybrid-view-start", start)) as whole:
            records = whole.records(_READ_S)
            while lot := list(islice(records, most)):
                yield lot
