"""The lake view beside the topic: rows a second from a full topic, and how soon a row can be queried."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.contract import Claim, Outcome
from connectors.kafka import ensure_topics
from connectors.lake import LakeTableMissingError, active_files, positions, relation
from connectors.player import Player, PlayOptions
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from streams.verify.broker import Broker
from streams.verify.lake_records import count_records

__all__ = ["measure"]

_TOPIC = "orders"
_JOINED = 8  # small files of a day that a round of compaction joins
_HOW = """The process `lake-view` with its default settings (a commit every 4 s or 50,000 records, current
tables, compaction) writes the topic `orders` to a lake in a folder. First {paced:,} order lines arrive at
{rate:,} a second: the end of the topic and the positions of the table are read five times a second, and the
lag is how long ago the topic ended where the table ends now, the largest that was seen. Then the view is
stopped, the rest of the year is put into the topic, and the view is started on it: the rate is rows over
time from its first commit to its last full one (what is left at the end waits for the 4 s). Files are counted
before and behind the compaction that follows. At the end every record is in the table, once."""
_WHY = "One process decodes, compresses and commits on cores shared with the broker and with others."


def measure(short: bool = False, orders: str = "", rate: str = "20000", seconds: str = "") -> Outcome:
    """Measure the lag at `rate` lines a second for `seconds`, then the rate over `orders` lines (the year)."""
    pace, lasts = int(rate), float(seconds or (4 if short else 20))
    paced = int(pace * lasts)
    whole = int(orders) if orders else 3 * paced if short else None
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as name,
        Supervisor(load({}), ("kafka", "registry"), Path(name) / "data", prefer_default_ports=False) as running,
    ):
        lake, settings = Path(name) / "lake", running.settings
        ensure_topics(settings.kafka)
        broker = Broker(settings.kafka)
        with _view(settings, lake, compact_s=3_600):
            lags = _lags(settings, broker, lake, pace, paced)
            _until(lambda: not _behind(broker, lake))
        _play(settings, PlayOptions(topics=(_TOPIC,), orders=whole))
        before = _rows(lake)
        with _view(settings, lake, compact_s=20) as view:
            seen = _filling(broker, lake, before)
            resident_mb = _resident_mb(view.pid)
            files_before = len(active_files(lake, _TOPIC))
            if files_before >= _JOINED:
                _until(lambda: len(active_files(lake, _TOPIC)) < _JOINED)
        files = len(active_files(lake, _TOPIC))
        per_s = _per_s(seen, settings.lake.flush_records)
        records, rows = _compared(broker, lake)
    if records != rows:
        raise RuntimeError(f"the topic has {records:,} records, and the lake {rows:,} rows")
    claims = [
        Claim("rows a second from a full topic", per_s, "/s", 50_000, why=_WHY),
        Claim("lag to queryable", round(max(lags), 2), "s", 10, at_most=True),
        Claim("files of a table after compaction", files, "files", 200, at_most=True),
    ]
    row = {
        "rows": rows, "rows/s": per_s, "lag, s": round(max(lags), 2), "files before": files_before,
        "files after": files, "resident, MB": resident_mb,
    }  # fmt: skip
    figures = {"lag_mean_s": round(sum(lags) / len(lags), 2), "filling": [[round(t, 1), n] for t, n in seen]}
    return Outcome(_HOW.format(paced=paced, rate=pace), () if short else claims, [row], figures)


@contextmanager
def _view(settings: Settings, lake: Path, compact_s: float) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | settings.environment()
    environment |= {"DEALERIQ_LAKE__URL": str(lake), "DEALERIQ_LAKE__COMPACT_EVERY_S": str(compact_s)}
    with subprocess.Popen(
        [sys.executable, "-m", "dealeriq.processes", "lake-view"], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _play(settings: Settings, options: PlayOptions) -> None:
    Player(settings.kafka, settings.registry, options, lambda stats: None, threading.Event()).play()


def _lags(settings: Settings, broker: Broker, lake: Path, pace: int, paced: int) -> list[float]:
    """The lag at each look while lines arrive at a pace, once the first of them is in the table."""
    source = threading.Thread(
        target=_play, args=(settings, PlayOptions(topics=(_TOPIC,), rate=pace, orders=paced))
    )
    source.start()
    times: list[float] = []
    ends: list[int] = []
    lags: list[float] = []
    while source.is_alive():
        times.append(time.monotonic())
        ends.append(sum(broker.ends(_TOPIC).values()))
        held = sum(_positions(lake).values())
        if held:
            # The topic grew beyond what the table holds behind the last look at which it ended there.
            grew = bisect_right(ends, held)
            lags.append(time.monotonic() - times[grew] if grew < len(times) else 0.0)
        time.sleep(0.2)
    source.join()
    return lags


def _filling(broker: Broker, lake: Path, before: int) -> list[tuple[float, int]]:
    """When the table had how many rows, from the first commit behind `before` to the last."""
    seen: list[tuple[float, int]] = []
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        rows = _rows(lake)
        if rows > (seen[-1][1] if seen else before):
            seen.append((time.monotonic(), rows))
        elif seen and not _behind(broker, lake):
            return seen
        time.sleep(0.1)
    raise RuntimeError("the lake does not get to the end of the topic")


def _per_s(seen: list[tuple[float, int]], full: int) -> int:
    """Rows a second from the first commit to the last one that did not wait for more."""
    partial = len(seen) > 2 and (seen[-1][1] - seen[-2][1]) % full != 0
    (first_s, first), (last_s, last) = seen[0], seen[-2 if partial else -1]
    return round((last - first) / (last_s - first_s))


def _positions(lake: Path) -> dict[int, int]:
    try:
        return positions(lake, _TOPIC)
    except LakeTableMissingError:
        return {}


def _rows(lake: Path) -> int:
    return sum(each.rows for each in active_files(lake, _TOPIC))


def _behind(broker: Broker, lake: Path) -> int:
    return count_records(broker, _TOPIC, _positions(lake), broker.ends(_TOPIC))


def _compared(broker: Broker, lake: Path) -> tuple[int, int]:
    """Records of the topic, and different positions in the lake."""
    with duckdb.connect() as sql:
        query = "SELECT count(*), count(DISTINCT (_partition, _offset)) FROM lake"
        ((rows, places),) = relation(sql, lake, _TOPIC).query("lake", query).fetchall()
    if rows != places:
        raise RuntimeError(f"{rows - places} rows are there twice")
    return count_records(broker, _TOPIC, {}, broker.ends(_TOPIC)), int(rows)


def _until(done: Any, wait_s: float = 120) -> None:
    deadline = time.monotonic() + wait_s
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {wait_s:g} s")
        time.sleep(0.2)


def _resident_mb(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
