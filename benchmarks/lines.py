"""Order lines scored from a full topic: our process beside Quix Streams with a Python predict."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import TopicPartition

from benchmarks.peer import ROOT
from benchmarks.peer import interpreter as peers
from benchmarks.peers.order_model import NAME
from connectors import demo_data
from connectors.kafka import consumer, producer
from connectors.messages import MessageWriter
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings
from dealeriq.training import interpreter
from features.plan import load as load_plan
from features.tiles import Tile, double_fields, sketch_fields
from features.writer import FeatureWriter
from models.artifact import load as load_artifact
from models.lifecycle_log import LifecycleLog
from schemas.catalogue import topic

__all__ = ["Progress", "fill", "made_model", "promoted", "rate_of_quix", "rates_of", "with_features"]

_DAY_MS = 86_400_000
_VIEWS = {
    "product_demand": ["product_id"], "dealer_category_orders": ["dealer_id", "category"],
    "dealer_orders": ["dealer_id"],
}  # fmt: skip
_TILES = 20
_STEP_S = 0.02


def made_model(root: Path) -> Path:
    """Train the model in the training environment; return its served folder. `root` has model.txt, too."""
    python = interpreter(lambda line: print(line, file=sys.stderr))
    subprocess.run([python, "-m", "benchmarks.peers.order_model", str(root)], check=True, stdout=sys.stderr)
    return next((root / NAME).iterdir())


def promoted(settings: Settings, folder: Path) -> None:
    """Make the version in a folder the champion."""
    told, _ = load_artifact(folder)
    with LifecycleLog(settings.kafka, settings.registry) as log:
        log.catch_up()
        log.write(
            NAME, told.version, "registered", "a benchmark", cause="1", reason="training",
            artifact=str(folder), sha256=told.sha256,
        )  # fmt: skip
        log.write(NAME, told.version, "champion", "a benchmark", cause="2", reason="gates")


def lines_now(first: int, count: int) -> pl.DataFrame:
    """Lines of the carried year, as if they came now; any number of them."""
    year = demo_data.orders().frame(0, count)
    return year.with_columns(
        pl.concat_str(pl.lit(f"n{first}-"), "event_id").alias("event_id"),
        event_time=pl.lit(time.time_ns() // 1_000_000, pl.Int64),
    )


def fill(settings: Settings, first: int, count: int) -> None:
    """Put `count` lines into the topic."""
    ids = Registry(settings.registry).register_all(["orders"])
    writer, out = MessageWriter("orders", ids["orders-value"], "/bench"), producer(settings.kafka)
    messages = writer.write(lines_now(first, count))
    for key, value, headers in zip(messages.keys, messages.values, messages.headers, strict=True):
        out.produce("orders", value, key=key, headers=headers)
    assert out.flush(120) == 0


def with_features(settings: Settings, count: int) -> None:
    """Store tiles of the last days for every dealer, category and product of the first `count` lines."""
    plan, client = load_plan(project=settings.features.project), connect(settings.redis)
    lines, rng = demo_data.orders().frame(0, count), random.Random(1)
    today = time.time_ns() // 1_000_000 // _DAY_MS * _DAY_MS
    for name, keys in _VIEWS.items():
        view = plan.views[name]
        writer = FeatureWriter(client, view, plan.project)
        grain_s = view.grains_ms[-1] // 1000
        entities = lines.select(keys).unique().rows()
        for at in range(0, len(entities), 500):
            updates = {
                entity: [_tile(view, rng, today - day * _DAY_MS, grain_s) for day in range(1, _TILES + 1)]
                for entity in entities[at : at + 500]
            }
            writer.write(updates, {(view.topic, 0): at + 1})


def _tile(view: Any, rng: random.Random, hop: int, grain_s: int) -> Tile:
    n = rng.randrange(1, 9)
    doubles = tuple(n * rng.uniform(1.0, 5.0) for _ in double_fields(view))
    return Tile(grain_s, hop, n, doubles, tuple(b"" for _ in sketch_fields(view)), hop + 1, (1,))


@dataclass
class Progress:
    """How far a stage's committed position is, over time."""

    settings: Settings
    group: str

    def __post_init__(self) -> None:
        self._reader = consumer(self.settings.kafka, self.group)
        self._places = [
            TopicPartition("orders", n) for n in range(self.settings.kafka.partitions_of(topic("orders")))
        ]

    def committed(self) -> int:
        """Return how many records lie before the position."""
        found = self._reader.committed(self._places, timeout=30)
        return sum(max(each.offset, 0) for each in found)

    def until(self, count: int, timeout_s: float = 600) -> list[tuple[float, int]]:
        """Return (time, position) at each look until the position has reached `count`."""
        seen: list[tuple[float, int]] = []
        deadline = time.monotonic() + timeout_s
        while not seen or seen[-1][1] < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.group} is at {seen[-1][1]} of {count} after {timeout_s:.0f} s")
            time.sleep(_STEP_S)
            seen.append((time.monotonic(), self.committed()))
        return seen

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()


@contextmanager
def line_scorer(supervisor: Supervisor) -> Iterator[Progress]:
    """Run the process that scores order lines."""
    settings = supervisor.settings
    command = [sys.executable, "-m", "dealeriq.processes", "line-scorer"]
    supervisor.start_process("line-scorer", command, environment=settings.environment())
    progress = Progress(settings, f"{settings.features.project}-line-scorer")
    try:
        yield progress
    finally:
        progress.close()
        supervisor.stop_process("line-scorer")


def rates_of(supervisor: Supervisor, lines: int, repeats: int) -> dict[str, list[float]]:
    """Return lines a second of our process, started anew on a full topic each time.

    `cold` is over the first `lines`, while each key's features are read for the first time; `warm` over the
    next.
    """
    rates: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(repeats):
        fill(supervisor.settings, number, 2 * lines)
        with line_scorer(supervisor) as progress:
            first = 2 * lines * number
            seen = progress.until(first + 2 * lines)
        began = next(i for i, (_, at) in enumerate(seen) if at > first)
        middle = next(i for i, (_, at) in enumerate(seen) if at >= first + lines)
        rates["cold"].append(_rate(seen[began], seen[middle]))
        rates["warm"].append(_rate(seen[middle], seen[-1]))
    return rates


def _rate(begin: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[1] - begin[1]) / max(end[0] - begin[0], 1e-9)


def rate_of_quix(settings: Settings, model: Path, lines: int, state: Path) -> float:
    """Return lines a second of Quix Streams on the same topic."""
    order = {
        "broker": settings.kafka.address, "registry": settings.registry.address, "model": str(model),
        "lines": lines, "state": str(state),
    }  # fmt: skip
    done = subprocess.run(
        [peers(), "-W", "ignore", "-m", "benchmarks.peers.quix_scoring"], input=json.dumps(order),
        stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["lines"] / found["seconds"])
