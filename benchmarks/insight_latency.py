"""From producing an odd order line to its insight over HTTP, on the whole system under a steady load."""

from __future__ import annotations

import random
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.lines import promoted
from benchmarks.peer import ask
from benchmarks.peers.order_model import ODD
from benchmarks.usage import Usage
from connectors.kafka import producer
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.system import SERVICES, System
from schemas.codec import Encoder

__all__ = ["insight_latency"]

_DEALERS, _PAUSE_S, _LONGEST_S = 4, 0.01, 120.0


class _Marker(threading.Thread):
    """One dealer whose odd lines are timed, one after another."""

    def __init__(self, settings: Settings, encoder: Encoder, until: float) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.failure: Exception | None = None
        self._dealer = f"marker-{uuid.uuid4().hex[:12]}"
        self._encoder, self._until = encoder, until
        self._producer = producer(settings.kafka, linger_ms=0)
        self._url = f"{settings.http.url}/v1/dealers/{self._dealer}/insights?limit=1"

    def run(self) -> None:
        try:
            while time.monotonic() < self._until:
                time.sleep(random.uniform(0.0, 1.0))  # at any moment of a checkpoint's interval
                self.seconds.append(self._one(len(self.seconds)))
        except Exception as failure:
            self.failure = failure

    def _one(self, number: int) -> float:
        line_id = f"{self._dealer}-{number}"
        value = self._encoder.encode(
            {
                "event_id": line_id, "order_id": line_id, "line": 0, "dealer_id": self._dealer,
                "customer_id": None, "product_id": "marker", "category": "MARKER", "brand": None,
                "quantity": 1, "amount": 2 * ODD, "discount": 0.0, "event_time": time.time_ns() // 1_000_000,
            }
        )  # fmt: skip
        began = time.monotonic()
        self._producer.produce("orders", value, self._dealer)
        self._producer.poll(0)
        while True:
            found = ask(self._url)["insights"]
            if found and found[0]["subject_id"] == line_id:
                return time.monotonic() - began
            if time.monotonic() - began > _LONGEST_S:
                raise RuntimeError(f"{line_id} raised no insight in {_LONGEST_S:.0f} s")
            time.sleep(_PAUSE_S)


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
        markers = [_Marker(settings, encoder, began + lasts_s) for _ in range(_DEALERS)]
        for marker in markers:
            marker.start()
        for marker in markers:
            marker.join()
        elapsed = time.monotonic() - began
        cpu, others = usage.by_process(), usage.others()
        interval = settings.insights.checkpoint_interval_ms
    for marker in markers:
        if marker.failure is not None:
            raise marker.failure
    return {
        "seconds": sorted(each for marker in markers for each in marker.seconds), "interval_ms": interval,
        "cores": round(sum(cpu.values()) / elapsed, 2), "others": others, "cpu_s": cpu,
    }  # fmt: skip
