"""Point-in-time features of 100,000 rows over the carried year, beside Feast's get_historical_features."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.contract import Claim, Outcome, middle
from benchmarks.peer import converse
from connectors import demo_data
from connectors.lake import LakeTable, arrow_schema
from features.plan import load

__all__ = ["lake_topic", "measure", "year_lake"]

_SERVICES = ("dealer", "dealer_category", "product")
_FEAST_ROWS = 2_000
_FEAST_COLUMNS = 25
_HOW = """The year of orders, chats and feedback lies in the lake. {rows:,} rows, each a dealer, category and
product of an order line at a moment within a day after it, get all {features} features of every view with
`dealeriq features history` (a process of its own: start, reading, computing, writing Parquet), {repeats} times;
memory is the process's largest resident set. Feast computes no sliding windows from events, so it is spared
them: its rows hold {columns} values of each order line's dealer, computed beforehand, and it only joins the
newest to each row (`get_historical_features` of its default local store, `to_df`). Its join holds every pair
of row and line of a dealer in memory, so it is given {batch:,} rows at a time; a batch is timed, and the time
of all rows is that times their number. Sentiment and intent of the chats are drawn by chance."""
_WHY = "The two cores are shared with others while it runs."


def measure(short: bool = False, rows: str = "", repeats: str = "") -> Outcome:
    """Ours and one batch of Feast's, in turn."""
    count = int(rows or (2_000 if short else 100_000))
    times = int(repeats or (1 if short else 3))
    batch = min(count, 200 if short else _FEAST_ROWS)
    ours: list[float] = []
    theirs: list[float] = []
    peak = feast_mb = 0.0
    with tempfile.TemporaryDirectory(prefix="dealeriq-history-") as name:
        folder = Path(name)
        lines = year_lake(folder / "lake", 30_000 if short else None)
        _rows(lines, count, folder / "rows.parquet")
        _feast_table(lines, folder / "feast.parquet")
        with converse("benchmarks.peers.feast_history", str(folder), str(_FEAST_COLUMNS)) as feast:
            for _ in range(times):
                seconds, peak = _ours(folder)
                ours.append(seconds)
                answer = feast.say({"rows": batch})
                theirs.append(answer["seconds"] * count / batch)
                feast_mb = max(feast_mb, answer["peak_mb"])
    pairs = [there / here for here, there in zip(ours, theirs, strict=True)]
    here, there = middle(ours), middle(theirs)
    return Outcome(
        how=_HOW.format(
            rows=count,
            features=sum(len(view.features) for view in load().views.values()),
            repeats=times,
            columns=_FEAST_COLUMNS,
            batch=batch,
        ),
        claims=[
            Claim("beside Feast's join", middle(pairs), "×", 20, spread=(min(pairs), max(pairs)), why=_WHY),
            Claim("memory", round(peak), "MB", 2_048, at_most=True, why="The chunks are too large."),
        ],
        table=[
            {
                "": name,
                "rows": rows,
                "seconds": seconds,
                "rows/s": round(rows / seconds),
                "peak MB": round(most),
            }
            for name, rows, seconds, most in (
                ("ours, all features", count, here, peak),
                (f"Feast, {_FEAST_COLUMNS} values, a batch", batch, there * batch / count, feast_mb),
            )
        ],
        figures={"ours_s": ours, "feast_s_for_all_rows": theirs},
    )


def _ours(folder: Path) -> tuple[float, float]:
    """Seconds and largest resident set, MB, of the command."""
    services = [part for name in _SERVICES for part in ("--service", name)]
    command = [sys.executable, "-m", "dealeriq", "features", "history", "--overwrite", *services]
    for option, name in (("--lake", "lake"), ("--entities", "rows.parquet"), ("--out", "out.parquet")):
        command += [option, str(folder / name)]
    # A process between: the peak of children is of all that this one ever had.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=-3); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return time.monotonic() - began, int(done.stdout) / 1024


def year_lake(root: Path, limit: int | None) -> pl.DataFrame:
    """Write the year as the lake view would; return the order lines' keys and times."""
    lines = None
    chance = np.random.default_rng(1)
    for topic, of in (("orders", "orders"), ("feedback", "feedback"), ("chats.enriched", "chats")):
        source = demo_data.source(of)
        frame = source.frame(0, min(len(source), limit or len(source)))
        rows = len(frame)
        drawn = {
            "intent": pl.Series(chance.choice(["order", "price", "complaint", "stock"], rows)),
            "sentiment": pl.Series(chance.uniform(-1, 1, rows)),
            "urgency": pl.Series(chance.uniform(0, 1, rows)),
            "intent_score": pl.Series(chance.uniform(0, 1, rows)),
        }
        if topic == "chats.enriched":
            frame = frame.with_columns(*[value.alias(name) for name, value in drawn.items()])
        lake_topic(root, topic, frame)
        lines = frame.select("dealer_id", "category", "product_id", "event_time") if lines is None else lines
    assert lines is not None
    return lines


def lake_topic(root: Path, topic: str, frame: pl.DataFrame) -> None:
    """Append records to a topic's table, in four partitions, with what every record has filled in."""
    fixed = {"currency": "USD", "channel": "store", "encoder": "drawn@1", "language": "en", "cause_id": "c"}
    missing = [pl.lit(value).alias(name) for name, value in fixed.items() if name not in frame.columns]
    frame = frame.with_columns(*missing)
    partition = np.array([zlib.crc32(name.encode()) % 4 for name in frame["dealer_id"].to_list()], np.int32)
    offset = np.zeros(len(frame), np.int64)
    for each in range(4):
        offset[partition == each] = np.arange((partition == each).sum())
    table = frame.to_arrow()
    beside: dict[str, Any] = {
        "_partition": pa.array(partition),
        "_offset": pa.array(offset),
        "_timestamp": table["event_time"],
        "_key": table["dealer_id"],
        "_crc": pa.array(offset),
        "_tombstone": pa.array(np.zeros(len(frame), np.bool_)),
        "_date": pa.array(["2026-01-01"] * len(frame)),
    }
    columns = []
    for field in arrow_schema(topic):
        found = beside.get(field.name, table[field.name] if field.name in table.column_names else None)
        columns.append(pa.nulls(len(frame), field.type) if found is None else found.cast(field.type))
    behind = {each: int((partition == each).sum()) for each in range(4)}
    LakeTable(root, topic).append(pa.table(columns, schema=arrow_schema(topic)), behind)


def _rows(lines: pl.DataFrame, count: int, path: Path) -> None:
    chance = np.random.default_rng(2)
    some = lines[chance.integers(0, len(lines), count)]
    times = some["event_time"].to_numpy() + chance.integers(0, 86_400_000, count)
    stamps = pa.array(times, pa.int64()).cast(pa.timestamp("ms", "UTC"))
    keys = {name: some[name].to_arrow() for name in ("dealer_id", "category", "product_id")}
    pq.write_table(pa.table({**keys, "event_timestamp": stamps}), path)


def _feast_table(lines: pl.DataFrame, path: Path) -> None:
    """Values of each order line's dealer; which ones does not matter to a join."""
    chance = np.random.default_rng(3)
    stamps = pa.array(lines["event_time"].to_numpy(), pa.int64()).cast(pa.timestamp("ms", "UTC"))
    values = {f"v{i}": chance.integers(0, 1000, len(lines)).astype(np.float64) for i in range(_FEAST_COLUMNS)}
    pq.write_table(
        pa.table({"dealer_id": lines["dealer_id"].to_arrow(), "event_timestamp": stamps, **values}), path
    )
