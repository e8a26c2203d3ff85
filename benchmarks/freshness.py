"""From producing an order to a reader that counts it, on the whole running system under a steady load."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition

from benchmarks.contract import Claim, Outcome
from benchmarks.marker import Marker, timed
from benchmarks.peers import VIEW
from benchmarks.usage import Usage
from connectors.demo_data import YEAR_END_MS
from connectors.kafka import consumer
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.system import SERVICES, System
from schemas.catalogue import topic
from schemas.codec import Encoder

__all__ = ["measure"]

_HOW = """The whole system runs under a steady load of {rate:,} orders a second, once *live* (lines of the
carried year, each stamped with the moment it is sent) and once *replayed* (the same year with its own
times, of which 5,000 orders are more than a day: nearly every order then makes tiles of its own, and the
job paces them). Beside the load, {dealers} marker dealers order one line at a time, at random moments: the
clock starts before the order is handed to the Kafka client, and stops when an HTTP read of that dealer
answers the count that includes it; reads follow one another every {pause_ms:g} ms. So the figure holds the
client, the broker, Flink, the tile topic, the feature view, Redis, the merge and the read, and in the
replay the player's transactions of 50 ms. {warm_s:g} s of load went before the first marker; no order was
lost. *Others* is what processes that are not ours took of the cores meanwhile. The claims are about live
orders."""
_WHY = "The cores are shared with others; the stages themselves hold an order for 40 ms twice."
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_DEALERS, _PAUSE_S = 4, 0.005
_FEATURE = "count_24h"


class _Orders(Marker):
    """One dealer's orders; `time_ms` None stamps each with its moment."""

    def __init__(self, settings: Settings, encoder: Encoder, until: float, time_ms: int | None) -> None:
        super().__init__(settings, encoder, until, rest_s=0.4)
        self._given_ms = time_ms
        self._url = f"{settings.http.url}/v1/features/{VIEW}/{self.dealer}?at="

    def one(self, number: int) -> float:
        at_ms = self._given_ms or time.time_ns() // 1_000_000
        line_id, product_id = f"{self.dealer}-{number}", f"marker-{number % 50}"
        return self.wait_s(
            line_id, product_id, 1.0, at_ms, lambda: self._read(at_ms + 60_000) >= number, _PAUSE_S
        )

    def _read(self, at_ms: int) -> int:
        try:
            with urllib.request.urlopen(f"{self._url}{at_ms}", timeout=30) as answer:
                return int(json.load(answer)["features"][VIEW][_FEATURE] or 0)
        except urllib.error.HTTPError as refused:
            if refused.code == 404:  # no such dealer yet
                return 0
            raise


def measure(short: bool = False, rate: str = "5000", seconds: str = "", warm: str = "") -> Outcome:
    """Time orders for `seconds` while `rate` others a second come, after `warm` seconds of the same."""
    lasts, warm_s = float(seconds or (5 if short else 60)), float(warm or (5 if short else 45))
    live, replayed = (_run(kind, rate, lasts, warm_s) for kind in ("live", "replayed"))
    claims = [
        Claim("produced to readable, p50", live[0]["p50, ms"], "ms", 250, at_most=True, why=_WHY),
        Claim("produced to readable, p99", live[0]["p99, ms"], "ms", 1_000, at_most=True, why=_WHY),
    ]
    how = _HOW.format(rate=int(rate), dealers=_DEALERS, pause_ms=_PAUSE_S * 1000, warm_s=warm_s)
    return Outcome(how, claims, [live[0], replayed[0]], {"live": live[1], "replayed": replayed[1]})


def _run(kind: str, rate: str, lasts: float, warm_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a row of the table, and the times and the CPU behind it."""
    settings = load(running=False)
    settings.demo.orders, settings.demo.speed, settings.demo.topics = None, rate, ["orders"]
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        system = System(supervisor, clock="wall" if kind == "live" else "event")
        system.start()
        growth = _Growth(supervisor.settings)
        if kind == "live":
            supervisor.start_process(
                "orders",
                [sys.executable, "-m", "benchmarks.live_orders", rate],
                environment=supervisor.settings.environment(),
                once=True,
            )
        else:
            system.start_process("player", once=True)
        while not growth.records():
            time.sleep(0.1)
        time.sleep(warm_s)
        ids = Registry(supervisor.settings.registry).register_all(["orders"])
        encoder = Encoder("orders", ids["orders-value"])
        usage, before, began = Usage(supervisor), growth.records(), time.monotonic()
        # An hour after the year, in one minute: each order makes the same tile newer.
        at_ms = None if kind == "live" else YEAR_END_MS + 3_600_000
        times = timed([_Orders(supervisor.settings, encoder, began + lasts, at_ms) for _ in range(_DEALERS)])
        elapsed = time.monotonic() - began
        came = (growth.records() - before) / elapsed
        cpu, others = usage.by_process(), usage.others()
    row = {
        "orders": kind, "orders/s": round(came), "timed": len(times),
        **{f"{name}, ms": round(_quantile(times, q) * 1000) for name, q in _QUANTILES.items()},
        "longest, ms": round(times[-1] * 1000), "cores used": round(sum(cpu.values()) / elapsed, 2),
        "others, cores": others,
    }  # fmt: skip
    return row, {"cpu_s": cpu, "ms": [round(each * 1000, 1) for each in times]}


class _Growth:
    """How many records the topic of orders has."""

    def __init__(self, settings: Settings) -> None:
        self._reader = consumer(settings.kafka, "dealeriq-bench", isolation_level="read_uncommitted")
        self._places = [
            TopicPartition("orders", n) for n in range(settings.kafka.partitions_of(topic("orders")))
        ]

    def records(self) -> int:
        return sum(self._reader.get_watermark_offsets(each, timeout=30)[1] for each in self._places)


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
