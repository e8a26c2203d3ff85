"""From producing an order to a reader that counts it, on the whole running system under a steady load."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome
from benchmarks.peers import VIEW
from benchmarks.usage import Usage
from connectors.demo_data import YEAR_END_MS
from connectors.kafka import producer
from connectors.registry import Registry
from dealeriq.demo.progress import played
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.system import SERVICES, System
from schemas.codec import Encoder

__all__ = ["measure"]

_HOW = """The whole system runs; the carried year's orders come at {rate:,} a second, in transactions of
50 ms as the player commits them. Beside them, {dealers} marker dealers order one line at a time, at random
moments: the clock starts before the order is handed to the Kafka client, and stops when an HTTP read of that
dealer answers the count that includes it; reads follow one another every {pause_ms:g} ms. So the figure holds
the client, the broker, the wait for open transactions, Flink, the tile topic, the feature view, Redis, the
merge and the read. {warm_s:g} s of load went before the first marker. {count} orders were timed, and none
was lost. *Others* is what processes that are not ours took of the cores meanwhile."""
_WHY = "The cores are shared with others; the stages themselves hold an order for 40 ms twice and 50 ms once."
_DEALERS, _PAUSE_S, _LONGEST_S = 4, 0.005, 120.0
_FEATURE = "count_24h"


class _Marker(threading.Thread):
    """One dealer whose orders are timed, one after another."""

    def __init__(self, settings: Settings, encoder: Encoder, until: float) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.failure: Exception | None = None
        self._dealer = f"marker-{uuid.uuid4().hex[:12]}"
        self._encoder, self._until = encoder, until
        self._producer = producer(settings.kafka, linger_ms=0)
        # An hour after the year, in one minute: each order makes the same tile newer.
        self._time_ms = YEAR_END_MS + 3_600_000
        self._url = f"{settings.http.url}/v1/features/{VIEW}/{self._dealer}?at={self._time_ms + 60_000}"

    def run(self) -> None:
        try:
            while time.monotonic() < self._until:
                time.sleep(random.uniform(0.0, 0.4))
                self.seconds.append(self._one(len(self.seconds) + 1))
        except Exception as failure:
            self.failure = failure

    def _one(self, count: int) -> float:
        value = self._encoder.encode(self._order(count))
        began = time.monotonic()
        self._producer.produce("orders", value, self._dealer)
        self._producer.poll(0)
        while self._read() < count:
            if time.monotonic() - began > _LONGEST_S:
                raise RuntimeError(f"order {count} of {self._dealer} is not readable after {_LONGEST_S:.0f} s")
            time.sleep(_PAUSE_S)
        return time.monotonic() - began

    def _read(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=30) as answer:
                return int(json.load(answer)["features"][VIEW][_FEATURE] or 0)
        except urllib.error.HTTPError as refused:
            if refused.code == 404:  # no such dealer yet
                return 0
            raise

    def _order(self, count: int) -> dict[str, Any]:
        return {
            "event_id": f"{self._dealer}-{count}", "order_id": f"{self._dealer}-{count}", "line": 0,
            "dealer_id": self._dealer, "customer_id": "c", "product_id": f"marker-{count % 50}",
            "category": "MARKER", "brand": None, "quantity": 1, "amount": 1.0, "discount": 0.0,
            "event_time": self._time_ms,
        }  # fmt: skip


def measure(short: bool = False, rate: str = "5000", seconds: str = "", warm: str = "") -> Outcome:
    """Time orders for `seconds` while `rate` others a second come, after `warm` seconds of the same."""
    lasts, warm_s = float(seconds or (5 if short else 60)), float(warm or (5 if short else 45))
    settings = load(running=False)
    settings.demo.orders, settings.demo.speed, settings.demo.topics = None, rate, ["orders"]
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        system = System(supervisor, clock="event")
        system.start()
        system.start_process("player", once=True)
        while not played(system).get("orders"):
            time.sleep(0.1)
        time.sleep(warm_s)
        ids = Registry(supervisor.settings.registry).register_all(["orders"])
        encoder = Encoder("orders", ids["orders-value"])
        usage, before, began = Usage(supervisor), played(system)["orders"], time.monotonic()
        markers = [_Marker(supervisor.settings, encoder, began + lasts) for _ in range(_DEALERS)]
        for marker in markers:
            marker.start()
        for marker in markers:
            marker.join()
        elapsed = time.monotonic() - began
        came = (played(system)["orders"] - before) / elapsed
        cpu, others = usage.by_process(), usage.others()
    for marker in markers:
        if marker.failure is not None:
            raise marker.failure
    times = sorted(each for marker in markers for each in marker.seconds)
    p50, p99 = (round(_quantile(times, q) * 1000) for q in (0.5, 0.99))
    claims = [
        Claim("produced to readable, p50", p50, "ms", 250, at_most=True, why=_WHY),
        Claim("produced to readable, p99", p99, "ms", 1_000, at_most=True, why=_WHY),
    ]
    row = {
        "orders/s": round(came), "timed": len(times), "p50, ms": p50,
        "p90, ms": round(_quantile(times, 0.9) * 1000), "p99, ms": p99, "longest, ms": round(times[-1] * 1000),
        "cores used": round(sum(cpu.values()) / elapsed, 2), "others, cores": others,
    }  # fmt: skip
    how = _HOW.format(
        rate=int(rate), dealers=_DEALERS, pause_ms=_PAUSE_S * 1000, warm_s=warm_s, count=len(times)
    )
    return Outcome(how, claims, [row], {"cpu_s": cpu, "ms": [round(each * 1000, 1) for each in times]})


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
