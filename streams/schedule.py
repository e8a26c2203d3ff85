"""Embedding runs on a schedule, beside the view that keeps what they embed."""

from __future__ import annotations

import threading
from typing import Protocol

from connectors.errors import translated
from connectors.log import get_logger
from streams.metrics import StageMeters

__all__ = ["EmbeddingSchedule"]

log = get_logger("dealeriq.embedding")


class Run(Protocol):
    """What one run did: vectors by what became of them, and how long it took, s."""

    encoder: str
    published: int
    unchanged: int
    deleted: int
    seconds: float


class Embedder(Protocol):
    """What can be run again and again."""

    def run(self) -> Run:
        """Embed, and publish what changed."""


class EmbeddingSchedule:
    """Runs an embedder `every_s` seconds after the end of its last run; one that fails waits for its next turn.

    Vectors are counted under `name` by what became of them: `published`, `unchanged`, `deleted`.
    """

    def __init__(self, name: str, embedder: Embedder, every_s: float) -> None:
        self._name, self._embedder, self._every_s = name, embedder, every_s
        self._meters = StageMeters(name)

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set. Raises what is no known trouble of a service, but a defect."""
        while not stop.wait(self._every_s):
            try:
                with self._meters.batch():
                    done = self._embedder.run()
            except Exception as failure:
                known = translated(failure)
                if known is None:
                    raise
                self._meters.error(failure)
                log.warning("not embedded; it is tried again", embedder=self._name, error=known.told)
                continue
            for outcome in ("published", "unchanged", "deleted"):
                self._meters.count(outcome, getattr(done, outcome))
            log.info(
                "embedded", embedder=self._name, encoder=done.encoder, published=done.published,
                seconds=done.seconds,
            )  # fmt: skip
