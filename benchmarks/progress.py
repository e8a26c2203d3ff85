"""How far the feature view of a running system is, from its own meters."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

from dealeriq.system import System

__all__ = ["applied", "until_at_rest"]

_LONGEST_S = 900.0


def applied(system: System) -> tuple[int, int]:
    """Return how many tiles the feature view has applied, and how many it knows of and has not."""
    with urllib.request.urlopen(system.metrics["feature-view"], timeout=10) as answer:
        lines = answer.read().decode().splitlines()

    def total(name: str, label: str) -> int:
        start = f"dealeriq_stage_{name}{{"
        return int(sum(float(line.rpartition(" ")[2]) for line in lines
                       if line.startswith(start) and f'"{label}"' in line))  # fmt: skip

    return total("records_total", "applied"), total("lag_records", "feature-view")


def until_at_rest(
    system: System, is_whole: Callable[[], bool], look: Callable[[], None] = lambda: None, quiet_s: float = 3.0
) -> tuple[int, float]:
    """Wait until `is_whole` and no tile was applied for `quiet_s`; return their number and when the last was.

    `look` is called twice a second. Raises RuntimeError where it takes 15 minutes.
    """
    began = last = time.monotonic()
    tiles = 0
    while time.monotonic() - last < quiet_s or not is_whole():
        time.sleep(0.5)
        look()
        now, lag = applied(system)
        if now != tiles or lag:
            tiles, last = now, time.monotonic()
        if time.monotonic() - began > _LONGEST_S:
            raise RuntimeError(f"after {_LONGEST_S:.0f} s {lag} tiles still wait")
    return tiles, last
