"""Embedding runs on a schedule, beside the view that keeps the graph."""

from __future__ import annotations

import threading

import structlog

from connectors.errors import translated
from streams.graph.embedding import GraphEmbedder
from streams.metrics import StageMeters

__all__ = ["GRAPH_EMBEDDER", "EmbeddingSchedule"]

GRAPH_EMBEDDER = "graph-embedder"
log = structlog.get_logger("dealeriq.graph")


class EmbeddingSchedule:
    """Runs an embedder `every_s` seconds after the end of its last run; one that fails waits for its next turn.

    Vectors are counted by what became of them: `published`, `unchanged`, `deleted`.
    """

    def __init__(self, embedder: GraphEmbedder, every_s: float) -> None:
        self._embedder, self._every_s = embedder, every_s
        self._meters = StageMeters(GRAPH_EMBEDDER)

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set. Raises what is no known trouble of Kafka or Neo4j, but a defect."""
        while not stop.wait(self._every_s):
            try:
                with self._meters.batch():
                    done = self._embedder.run()
            except Exception as failure:
                known = translated(failure)
                if known is None:
                    raise
                self._meters.error(failure)
                log.warning("the graph could not be embedded; it is tried again", error=known.told)
                continue
            for outcome in ("published", "unchanged", "deleted"):
                self._meters.count(outcome, getattr(done, outcome))
            log.info(
                "the graph is embedded", encoder=done.encoder, published=done.published, seconds=done.seconds
            )
