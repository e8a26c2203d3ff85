"""The tiles job from a full topic: to the tile topics, and on to readable beside Quix Streams."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from benchmarks.contract import Claim, Outcome, middle
from benchmarks.peer import ROOT, interpreter
from benchmarks.progress import until_at_rest
from connectors.kafka import ensure_topics
from connectors.player import Player, PlayOptions
from connectors.registry import Registry
from dealeriq.flink import target
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.system import SERVICES, System
from features.plan import Plan
from features.plan import load as load_plan
from schemas.catalogue import topic
from streams.flink.job import FlinkTarget, JobHandle, submit
from streams.flink.rest import FlinkRest
from streams.flink.spec import DEDUPE_HORIZON_MS, Timing

__all__ = ["measure"]

_HOW = """{orders} order lines of the carried year lie in their topic (4 partitions, lz4). One job at a time
reads them on a TaskManager that has run such a job before, as a running system's has; broker and Flink share
the machine. The clock runs from the job's start to the timestamp of its last tile; what it counted was every
line. *cold* is the first job of a fresh TaskManager: the Java runtime compiles while it folds.

*To readable* is one view (dealer orders: 3 grains, deduplicated) from the topic into Redis through Flink and
the feature view, until the last tile is stored. Quix Streams reads {peers} lines of the same topic and keeps
tiles of the same grains in the same Redis, in one process, with its defaults: no deduplication, no distinct
counts, its own sink; *final* sends a tile when it is closed, *current* whenever it changes, as ours does."""
_BEHIND = "Dealer orders of one view, from a full topic."
_ORDERS = ("dealer_orders",)
_ALL = ("dealer_orders", "dealer_category_orders", "product_demand")


@dataclass
class _Bench:
    settings: Settings
    system: System
    target: FlinkTarget
    rest: FlinkRest
    ids: dict[str, int]
    lines: int
    jobs: int = 0

    def plan(self, views: Sequence[str]) -> Plan:
        whole = load_plan()
        return replace(whole, views={name: whole.views[name] for name in views}, services={})

    def start(self, views: Sequence[str], horizon_ms: int, names: dict[str, str]) -> JobHandle:
        """Submit a job that nothing was remembered of."""
        self.jobs += 1
        (handle,) = submit(
            self.target,
            self.plan(views),
            schema_ids=self.ids,
            kafka=self.settings.kafka.flink_properties(),
            registry=self.settings.registry.flink_properties(),
            parallelism=self.settings.flink.parallelism,
            timing=Timing(dedupe_horizon_ms=horizon_ms),
            names=names,
            prefix=f"bench{self.jobs}-",
        )
        return handle

    def running_since(self, handle: JobHandle) -> float:
        """Return when the job began to run, s since the epoch."""
        return float(self.rest.get(f"/jobs/{handle.job_id}")["timestamps"]["RUNNING"]) / 1000

    def is_whole(self, handle: JobHandle) -> bool:
        """Whether each line was counted. Flink's counters lag, and so only say that nothing is missing."""
        counters = self.rest.counters(handle.job_id)
        return counters.get("events", 0) + counters.get("duplicates", 0) >= self.lines

    def to_topics(self, views: Sequence[str], horizon_ms: int) -> tuple[float, int]:
        """Return events a second from the job's start to its last tile, and how many tiles there were."""
        names = {view: f"bench{self.jobs + 1}.{topic(f'tiles.{view}').name}" for view in views}
        admin = AdminClient(self.settings.kafka.client_config())
        fresh = [NewTopic(name, 4, 1, config={"cleanup.policy": "compact"}) for name in names.values()]
        for done in admin.create_topics(fresh).values():
            done.result(30)
        handle = self.start(views, horizon_ms, {f"tiles.{view}": name for view, name in names.items()})
        before: object = None
        while not self.is_whole(handle) or before != (ends := self._ends(admin, names.values())):
            before = self._ends(admin, names.values())
            time.sleep(1.5)
        seconds = self._last_ms(admin, names.values()) / 1000 - self.running_since(handle)
        self.rest.cancel(handle.job_id)
        for done in admin.delete_topics(list(names.values())).values():
            done.result(30)
        return self.lines / seconds, sum(ends)

    def to_readable(self) -> float:
        """Return events a second of one view, from the job's start to the last tile in Redis."""
        self.system.start_process("feature-view")
        handle = self.start(_ORDERS, DEDUPE_HORIZON_MS, {})
        began = self.running_since(handle) - time.time() + time.monotonic()
        _, last = until_at_rest(self.system, lambda: self.is_whole(handle))
        self.rest.cancel(handle.job_id)
        return self.lines / (last - began)

    def _places(self, names: Any) -> list[TopicPartition]:
        return [TopicPartition(name, partition) for name in names for partition in range(4)]

    def _ends(self, admin: AdminClient, names: Any) -> list[int]:
        found = admin.list_offsets({place: OffsetSpec.latest() for place in self._places(names)})
        return [done.result(30).offset for done in found.values()]

    def _last_ms(self, admin: AdminClient, names: Any) -> int:
        found = admin.list_offsets({place: OffsetSpec.max_timestamp() for place in self._places(names)})
        return max(int(done.result(30).timestamp) for done in found.values())


def measure(short: bool = False, orders: str = "", repeats: str = "", peers: str = "") -> Outcome:
    """Fold `orders` lines (the year by default) in each way; `peers` lines go through Quix Streams."""
    limit = int(orders) if orders else 20_000 if short else None
    times, few = int(repeats or (1 if short else 2)), int(peers or (5_000 if short else 100_000))
    settings = load(running=False)
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        settings = supervisor.settings
        ensure_topics(settings.kafka)
        ids = Registry(settings.registry).register_all()
        played = Player(settings.kafka, settings.registry, PlayOptions(topics=("orders",), orders=limit)).play()
        lines = played.produced["orders"]
        flink = target(settings)
        bench = _Bench(settings, System(supervisor), flink, FlinkRest(flink.url), ids, lines)
        ways = {
            "all views of orders, deduplicated, cold": (_ALL, DEDUPE_HORIZON_MS),
            "dealer orders, not deduplicated": (_ORDERS, 0),
            "dealer orders, deduplicated": (_ORDERS, DEDUPE_HORIZON_MS),
            "all views of orders, deduplicated": (_ALL, DEDUPE_HORIZON_MS),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        tiles = dict.fromkeys(ways, 0)
        for turn in range(times):
            for way, given in ways.items():
                if turn == 0 or not way.endswith("cold"):
                    rate, tiles[way] = bench.to_topics(*given)
                    rates[way].append(rate)
        readable = [bench.to_readable()]
        quix = {way: [_quix(settings, Path(folder), way, few)] for way in ("final", "current")}
    table = [_row(f"{way}, to topics", some, lines, tiles[way]) for way, some in rates.items()]
    table += [_row("dealer orders, deduplicated, to readable", readable, lines, None)]
    table += [_row(f"Quix Streams, {way}, to readable", some, few, None) for way, some in quix.items()]
    best = max(middle(some) for some in quix.values())

    def claim(way: str, aim: float) -> Claim:
        some = rates[way]
        return Claim(way, round(middle(some)), "events/s", aim, spread=(round(min(some)), round(max(some))))

    claims = [
        claim("dealer orders, not deduplicated", 100_000),
        claim("dealer orders, deduplicated", 80_000),
        claim("all views of orders, deduplicated", 30_000),
        Claim("orders to readable beside Quix Streams", round(middle(readable) / best, 2), "×", 3, why=_BEHIND),
    ]
    how = _HOW.format(orders=f"{lines:,}", peers=f"{few:,}")
    return Outcome(how, claims, table, {"events_per_s": rates, "readable": readable, "quix": quix})


def _row(way: str, rates: Sequence[float], lines: int, tiles: int | None) -> dict[str, Any]:
    return {"": way, "events": lines, "events/s": round(middle(rates)), "tiles": "" if tiles is None else tiles}


def _quix(settings: Settings, folder: Path, way: str, lines: int) -> float:
    """Return events a second of Quix Streams, from its first event to its last write."""
    order = {
        "broker": settings.kafka.bootstrap,
        "registry": settings.registry.address,
        "redis": settings.redis.address,
        "state": str(folder / f"quix-{way}"),
        "way": way,
        "lines": lines,
    }
    done = subprocess.run(
        [interpreter(), "-W", "ignore", "-m", "benchmarks.peers.quix_tiles"],
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["keys"]:
        raise RuntimeError("Quix Streams wrote nothing")
    return float(found["events"] / found["seconds"])
