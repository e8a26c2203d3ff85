"""What the lake view does beside appending: current tables, compaction and vacuum, on a schedule."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from prometheus_client import Gauge

from connectors.lake import (
    LakeConflictError,
    LakeTableMissingError,
    LakeUnavailableError,
    Root,
    active_files,
    compact,
    refresh,
    vacuum,
)
from connectors.log import get_logger
from streams.metrics import REGISTRY, StageMeters

__all__ = ["LakeUpkeep"]

log = get_logger()

FILES = Gauge(
    "dealeriq_lake_files", "Parquet files that make up a table of the lake", ["topic"], registry=REGISTRY
)
ROWS = Gauge("dealeriq_lake_rows", "Rows of a table of the lake", ["topic"], registry=REGISTRY)
SIZE = Gauge("dealeriq_lake_bytes", "Bytes of a table of the lake", ["topic"], registry=REGISTRY)


class LakeUpkeep:
    """Keeps the tables of some topics in order. `seconds` are waits between rounds.

    A round that fails is counted and logged, and the next one tries again: it never stops the view.
    """

    def __init__(
        self,
        root: Root,
        topics: Iterable[str],
        *,
        current_every_s: float,
        compact_every_s: float,
        retention_h: float,
    ) -> None:
        self._root, self._topics = root, tuple(topics)
        self._current_s, self._compact_s, self._retention_h = current_every_s, compact_every_s, retention_h
        self._meters = StageMeters("lake-upkeep")

    def run(self, stop: threading.Event) -> None:
        """Run rounds until `stop` is set."""
        now = time.monotonic()
        next_current, next_compact = now + self._current_s, now + self._compact_s
        while not stop.wait(max(0.0, min(next_current, next_compact) - time.monotonic())):
            if time.monotonic() >= next_current:
                self.refresh(stop)
                next_current = time.monotonic() + self._current_s
            if time.monotonic() >= next_compact:
                self.tidy(stop)
                next_compact = time.monotonic() + self._compact_s

    def refresh(self, stop: threading.Event) -> None:
        """Bring every current table up to its topic's table."""
        for name in self._topics:
            if stop.is_set():
                return
            self._carefully(name, partial(self._refresh, name))

    def tidy(self, stop: threading.Event) -> None:
        """Join small files and delete old ones, table by table."""
        for name in self._topics:
            for current in (False, True):
                if stop.is_set():
                    return
                self._carefully(name, partial(self._tidy, name, current))

    def _refresh(self, name: str) -> None:
        self._meters.count("current", refresh(self._root, name))

    def _tidy(self, name: str, current: bool) -> None:
        done = compact(self._root, name, current=current)
        if done.days:
            self._meters.count("compacted", done.files_before - done.files_after)
            vacuum(self._root, name, self._retention_h, current=current)
        if not current:
            found = active_files(self._root, name)
            FILES.labels(name).set(len(found))
            ROWS.labels(name).set(sum(each.rows for each in found))
            SIZE.labels(name).set(sum(each.size for each in found))

    def _carefully(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except LakeTableMissingError:
            return  # no record came yet, or the topic has no current table
        except (LakeConflictError, LakeUnavailableError) as failure:
            self._meters.error(failure)
        except Exception as failure:
            self._meters.error(failure)
            log.error("a table of the lake could not be kept in order", topic=name, error=str(failure))
