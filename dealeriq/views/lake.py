"""The process `lake-view`: every topic, appended to the lake; its tables are kept in order beside."""

from __future__ import annotations

import threading

from connectors.lake import default_topics, lake_at
from connectors.registry import Registry
from dealeriq.settings import Settings
from schemas.catalogue import topic
from streams.views.lake_upkeep import LakeUpkeep
from streams.views.lake_view import LakeView
from streams.views.runner import ViewRunner

__all__ = ["run"]


def run(settings: Settings, stop: threading.Event) -> None:
    """Append every topic to the lake, and keep its tables in order, until `stop`."""
    names = settings.lake.topics or default_topics()
    for name in names:
        topic(name)
    root = lake_at(settings.lake, settings.data_dir)
    view = LakeView(root, names, Registry(settings.registry).schema)
    upkeep = LakeUpkeep(
        root,
        names,
        current_every_s=settings.lake.current_every_s,
        compact_every_s=settings.lake.compact_every_s,
        retention_h=settings.lake.retention_h,
    )
    beside = threading.Thread(target=upkeep.run, args=(stop,), name="lake-upkeep", daemon=True)
    beside.start()
    # The consumer itself gathers a batch: it waits until there are enough records, or long enough.
    runner = ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=settings.lake.flush_records,
        poll_ms=int(settings.lake.flush_s * 1000),
    )
    runner.run()
    beside.join(30)
