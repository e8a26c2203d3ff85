"""The process `graph-view`: products, dealers, stock and order lines in Neo4j."""

from __future__ import annotations

import threading

from connectors.kafka import ensure_topics, producer
from connectors.neo4j.driver import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from streams.graph.embedding import GraphEmbedder
from streams.graph.store import GraphStore
from streams.schedule import EmbeddingSchedule
from streams.views.graph_view import GRAPH_VIEW, GraphView
from streams.views.runner import ViewRunner

__all__ = ["run"]

_POLL_MS = 100  # a transaction costs as much as a hundred lines: a few more share it


def run(settings: Settings, stop: threading.Event) -> None:
    """Keep the graph, and embed it where it has a schedule, until `stop`."""
    with connect(settings.graph) as driver:
        store = GraphStore(driver, settings.graph.database, GRAPH_VIEW)
        registry = Registry(settings.registry)
        view = GraphView(store, registry.schema)
        ensure_topics(settings.kafka, [*view.topics, "embeddings"])
        if settings.graph.embedding_every_s is not None:
            schema_id = registry.register_all(["embeddings"])["embeddings-value"]
            embedder = GraphEmbedder(driver, settings.graph, producer(settings.kafka), schema_id)
            schedule = EmbeddingSchedule("graph-embedder", embedder, settings.graph.embedding_every_s)
            threading.Thread(target=schedule.run, args=(stop,), name="graph-embedder", daemon=True).start()
        ViewRunner(
            settings.kafka,
            view,
            stop=stop,
            batch_records=settings.graph.batch_records,
            poll_ms=_POLL_MS,
            group=f"{settings.features.project}-{view.name}",
        ).run()
