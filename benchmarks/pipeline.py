"""Events produced → features readable, on the whole local system from empty."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.contract import Claim, Outcome
from dealeriq.demo.progress import played, read
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System

__all__ = ["measure"]

_QUIET_S = 4.0
_HOW = """Order lines are played into an empty system: all order views, deduplicated by id, with everything
(broker, registry, Flink, store, agents, HTTP) on the one machine. It is over when the feature view has folded
the last tile."""
_WHY = """The feature view holds Flink up: half of its time goes into encoding tiles of products, of which
nearly every order touches another."""


def measure(short: bool = False, orders: str | None = None, speed: str = "max") -> Outcome:
    """Play orders into an empty system and wait until every tile is readable.

    `orders` is how many lines, all of the year by default; `speed` is events a second or "max". The whole
    system runs; only orders are played. It is over when the feature view has folded every tile.
    """
    wanted = int(orders) if orders else 20_000 if short else None
    settings = load(running=False)
    settings.demo.orders, settings.demo.speed, settings.demo.topics = wanted, speed, ["orders"]
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
        resident_gb = sum(each.rss for each in supervisor.status()) / 1e9
        row = {
            "orders": lines,
            "tiles": applied,
            "seconds": round(seconds, 1),
            "orders/s": round(lines / seconds),
            "start, s": round(started_s, 1),
            "resident, GB": round(resident_gb, 2),
        }
        claims = [
            Claim("the year, from empty to readable", round(seconds, 1), "s", 75, at_most=True, why=_WHY),
            Claim("the whole stack, resident", round(resident_gb, 2), "GB", 3, at_most=True),
        ]
        return Outcome(_HOW, claims if wanted is None and speed == "max" else (), [row], {
            "freshness_s": {name: round(value, 4) for name, value in reading.freshness.items()},
        })  # fmt: skip
