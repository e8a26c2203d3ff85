"""Events produced → features readable, on the whole local system from empty."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from dealeriq.demo.progress import played, read
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System

__all__ = ["measure"]

_QUIET_S = 4.0


def measure(orders: int | None, speed: str) -> dict[str, Any]:
    """Play orders into an empty system and wait until every tile is readable.

    `speed` is events a second or "max". The whole system runs; only orders are played. It is over when the
    feature view has folded every tile.
    """
    settings = load()
    settings.demo.orders, settings.demo.speed, settings.demo.topics = orders, speed, ["orders"]
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        system = System(supervisor, clock="event")
        began = time.monotonic()
        system.start()
        started_s = supervisor.start_seconds + time.monotonic() - began
        system.start_process("player", once=True)
        began = time.monotonic()
        while not played(system).get("orders"):
            time.sleep(0.02)
        began = time.monotonic()
        # Flink's counters lag by seconds, the view's meters do not: the last tile applied is the end.
        last = quiet_since = time.monotonic()
        applied = -1
        while time.monotonic() - quiet_since < _QUIET_S:
            time.sleep(0.1)
            reading = read(system)
            now = reading.stages.get("feature-view", {}).get("applied", 0)
            if now != applied:
                applied, last = now, time.monotonic()
            if supervisor.child("player").state != "done" or reading.lag:
                quiet_since = time.monotonic()
            quiet_since = max(quiet_since, last)
        seconds = last - began
        lines = reading.produced["orders"]
        return {
            "orders": lines,
            "tiles": applied,
            "seconds": round(seconds, 2),
            "orders_per_s": round(lines / seconds),
            "freshness_s": {name: round(value, 4) for name, value in reading.freshness.items()},
            "start_s": round(started_s, 2),
            "resident_mb": sum(each.rss for each in supervisor.status()) >> 20,
        }
