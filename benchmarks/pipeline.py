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


def measure(orders: int | None, speed: str) -> dict[str, Any]:
    """Play orders into an empty system and wait until every tile is readable.

    `speed` is events a second or "max". Chats and feedback are played too, as in the demo; waited for are
    the order views: Flink has read every order, and the feature view has folded every tile.
    """
    settings = load()
    settings.demo.orders, settings.demo.speed = orders, speed
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
        quiet, before = 0, None
        while quiet < 4:
            time.sleep(0.25)
            reading = read(system)
            now = (reading.produced.get("orders"), reading.flink.get("tiles"))
            over = supervisor.child("player").state == "done" and not reading.lag
            quiet = quiet + 1 if over and now == before else 0
            before = now
        seconds = max(time.monotonic() - began - 1.0, 1e-9)  # the last second only showed that nothing moved
        lines = reading.produced["orders"]
        return {
            "orders": lines,
            "tiles": reading.flink.get("tiles"),
            "seconds": round(seconds, 2),
            "orders_per_s": round(lines / seconds),
            "freshness_s": {name: round(value, 4) for name, value in reading.freshness.items()},
            "start_s": round(started_s, 2),
            "resident_mb": sum(each.rss for each in supervisor.status()) >> 20,
        }
