"""The same events into an empty system twice, at another pace: the same bytes online and rows in the lake."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from benchmarks.contract import Claim, Outcome
from connectors import demo_data
from connectors.identity import identify
from connectors.kafka import ensure_topics, producer
from connectors.lake import lake_at, relation
from connectors.messages import MessageWriter
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.demo.progress import settle
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System
from dealeriq.verifier import verifier
from features.plan import load as load_plan

__all__ = ["Contents", "differing", "events", "fill", "measure"]

_PROCESSES = ("flink-jobs", "feature-view", "lake-view")
_REPEATED = 0.05
_HOW = """{count:,} order lines of the year, shuffled within the {late_h:g} hours that they may come late,
{again:,} of them twice, go into an empty system: once all before its jobs start, once in {chunks} pieces
while they run, so that mini-batches, commits and writes fall differently. Both systems are verified, in
full. Then every field of every online row is compared byte by byte (but the token that names its last
writer), and every column of every row of the lake (but the checksum of the bytes as they came: they hold the
number that the registry gave the schema, which is another one in another registry)."""


@dataclass(frozen=True)
class Contents:
    """What a system holds at rest: online fields by row and name, and the lake's orders by position."""

    online: Mapping[bytes, Mapping[bytes, bytes]]
    lake: pl.DataFrame


def measure(short: bool = False, orders: str = "") -> Outcome:
    """Fill two systems with `orders` lines (200,000) and compare them."""
    given = events(int(orders) if orders else 5_000 if short else 200_000)
    base_ms = time.time_ns() // 1_000_000
    chunks = 20
    first, again = fill(given, base_ms, chunks=0), fill(given, base_ms, chunks=chunks)
    rows, fields, lake = differing(first, again)
    row = {
        "records": len(given), "online rows": len(first.online), "lake rows": len(first.lake),
        "rows that differ": rows, "fields that differ": fields, "lake rows that differ": lake,
    }  # fmt: skip
    late_h = _late_ms() / 3_600_000
    repeated = len(given) - given["event_id"].n_unique()
    how = _HOW.format(count=len(given) - repeated, late_h=late_h, again=repeated, chunks=chunks)
    claims = [
        Claim("online rows that differ", rows, "rows", 0, at_most=True),
        Claim("rows of the lake that differ", lake, "rows", 0, at_most=True),
    ]
    return Outcome(how, () if short else claims, [row])


def events(count: int, seed: int = 5) -> pl.DataFrame:
    """Return order lines as they come: shuffled within the lateness that every view allows, some twice."""
    chance = np.random.default_rng(seed)
    lines = demo_data.orders().frame(0, count)
    lines = lines.with_columns(event_id=pl.Series(identify("orders", lines), dtype=pl.String))
    again = lines[chance.integers(0, count, int(count * _REPEATED))]
    lines = pl.concat([lines, again])
    arrival = lines["event_time"].to_numpy() + chance.integers(0, _late_ms(), len(lines))
    return lines[np.argsort(arrival, kind="stable")]


def fill(given: pl.DataFrame, base_ms: int, *, chunks: int) -> Contents:
    """Put events into an empty system, wait until it is at rest, verify it, and return what it holds.

    With `chunks` 0 all are there before the jobs start; else so many pieces come while they run. Record times
    are made from `base_ms`, so that they are the same in two systems. Raises RuntimeError for a finding.
    """
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-same-") as folder,
        Supervisor(load(running=False), SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        settings, system = supervisor.settings, System(supervisor, clock="event")
        ensure_topics(settings.kafka)
        ids = Registry(settings.registry).register_all()
        writer = MessageWriter("orders", ids["orders-value"], "/same")
        if not chunks:
            _send(system, writer, given, base_ms, 0)
        for name in _PROCESSES:
            system.start_process(name, wait_s=0)
        for name in _PROCESSES:
            supervisor.wait_ready(name)
        size = -(-len(given) // max(chunks, 1))
        for start in range(0, len(given) if chunks else 0, size):
            _send(system, writer, given.slice(start, size), base_ms, start)
            time.sleep(0.2)
        settle(system, lambda line: print(line, file=sys.stderr, flush=True))
        checker = verifier(settings)
        checker.wait_s = 120
        report = checker.run(agents=False)
        if not report.clean:
            raise RuntimeError(f"verify found {report.counts}: {report.findings[0].line()}")
        lake, until = _lake(system), time.monotonic() + 120
        while len(lake) < len(given) and time.monotonic() < until:  # it stands back behind the features
            time.sleep(1)
            lake = _lake(system)
        return Contents(_online(system), lake)


def differing(first: Contents, again: Contents) -> tuple[int, int, int]:
    """Return how many online rows, online fields and rows of the lake are not the same."""
    rows = fields = 0
    for key in {*first.online, *again.online}:
        one, other = first.online.get(key, {}), again.online.get(key, {})
        wrong = sum(one.get(name) != other.get(name) for name in {*one, *other})
        rows, fields = rows + (wrong > 0), fields + wrong
    if first.lake.shape != again.lake.shape:
        return rows, fields, max(len(first.lake), len(again.lake))
    same = np.ones(len(first.lake), bool)
    for name in first.lake.columns:
        same &= first.lake[name].eq_missing(again.lake[name]).to_numpy()
    return rows, fields, int((~same).sum())


def _late_ms() -> int:
    return min(view.lateness_ms for view in load_plan().views.values() if view.source_topic == "orders")


def _send(system: System, writer: MessageWriter, some: pl.DataFrame, base_ms: int, start: int) -> None:
    out = producer(system.supervisor.settings.kafka)
    messages = writer.write(some)
    for i, (key, value, headers) in enumerate(
        zip(messages.keys, messages.values, messages.headers, strict=True), start
    ):
        out.produce("orders", value, key=key, headers=headers, timestamp=base_ms + i)
        if i % 10_000 == 0:
            out.poll(0)
    if out.flush(120):
        raise RuntimeError("the broker does not take the events")


def _online(system: System) -> dict[bytes, dict[bytes, bytes]]:
    store = connect(system.supervisor.settings.redis)
    found = {}
    for key in store.scan_iter(count=1_000):
        if not key.startswith(b"dealeriq:"):  # positions and the clock, which count records and not events
            row = store.hgetall(key)
            found[key] = {name: value for name, value in row.items() if not name.startswith(b"_version:")}
    return found


def _lake(system: System) -> pl.DataFrame:
    settings = system.supervisor.settings
    lake = lake_at(settings.lake, system.supervisor.data_dir)
    with duckdb.connect() as sql:
        found: pl.DataFrame = relation(sql, lake, "orders").order("_partition, _offset").pl()
        return found.drop("_crc")
