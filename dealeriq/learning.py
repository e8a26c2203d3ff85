"""The process `trainer`: served models and vectors are watched, and models trained when it is asked for."""

from __future__ import annotations

import threading

from dealeriq.embedding_watch import EmbeddingWatch
from dealeriq.monitor import Monitor
from dealeriq.settings import Settings
from dealeriq.trainer import Trainer

__all__ = ["run"]


def run(settings: Settings, stop: threading.Event) -> None:
    """Watch the served models and the vectors, and train when it is asked for, until `stop`."""
    beside = []
    if settings.monitors.enabled:
        beside.append(threading.Thread(target=Monitor(settings, stop).run, name="monitor", daemon=True))
    if settings.embeddings.monitor and settings.search.address() is not None:
        watch = EmbeddingWatch(settings, stop)
        beside.append(threading.Thread(target=watch.run, name="embedding-watch", daemon=True))
    for each in beside:
        each.start()
    Trainer(settings, stop).run()
    for each in beside:
        each.join(30)
