"""From producing an odd order line to its insight over HTTP, on the whole system under a steady load."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.lines import promoted
from benchmarks.marker import Marker, timed
from benchmarks.peer import ask
from benchmarks.peers.order_model import ODD
from benchmarks.usage import Usage
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.system import SERVICES, System
from schemas.codec import Encoder

__all__ = ["insight_latency"]

_DEALERS, _PAUSE_S = 4, 0.01


class _OddLines(Marker):
    """One dealer whose lines are odd."""

    def __init__(self, settings: Settings, encoder: Encoder, until: float) -> None:
        super().__init__(settings, encoder, until, rest_s=1.0)  # at any moment of a checkpoint's interval
        self._url = f"{settings.http.url}/v1/dealers/{self.dealer}/insights?limit=1"

    def one(self, number: int) -> float:
        line_id = f"{self.dealer}-{number}"

        def there() -> bool:
            found = ask(self._url)["insights"]
            return bool(found) and found[0]["subject_id"] == line_id

        return self.wait_s(line_id, "marker", 2 * ODD, time.time_ns() // 1_000_000, there, _PAUSE_S)


def insight_latency(folder: Path, model: Path, rate: float, lasts_s: float, warm_s: float) -> dict[str, Any]:
    """Return the times (s), and what the system used meanwhile."""
    settings = load(running=False)
    with Supervisor(settings, SERVICES, folder, prefer_default_ports=False) as supervisor:
        system = System(supervisor)
        system.start()
        settings = supervisor.settings
        promoted(settings, model)
        load_ = [sys.executable, "-m", "benchmarks.live_orders", str(rate)]
        supervisor.start_process("orders", load_, environment=settings.environment(), once=True)
        time.sleep(warm_s)
        ids = Registry(settings.registry).register_all(["orders"])
        encoder, usage, began = Encoder("orders", ids["orders-value"]), Usage(supervisor), time.monotonic()
        seconds = timed([_OddLines(settings, encoder, began + lasts_s) for _ in range(_DEALERS)])
        elapsed = time.monotonic() - began
        cpu, others = usage.by_process(), usage.others()
        interval = settings.insights.checkpoint_interval_ms
    return {
        "seconds": seconds, "interval_ms": interval,
        "cores": round(sum(cpu.values()) / elapsed, 2), "others": others, "cpu_s": cpu,
    }  # fmt: skip
