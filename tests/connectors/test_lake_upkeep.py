"""Compaction and vacuum change files, never rows or positions."""

import os
import time
from pathlib import Path
from typing import Any

import duckdb
from lake_tables import NOW, order, write_events

from connectors.lake import active_files, compact, files, positions, relation, vacuum, version

DAY = 86_400_000
TODAY = time.time_ns() // 1_000_000


def rows(root: Path, **how: Any) -> list[Any]:
    with duckdb.connect() as sql:
        return relation(sql, root, "orders", **how).order("_offset").fetchall()  # type: ignore[no-any-return]


def age(paths: list[Path], hours: float) -> None:
    for path in paths:
        os.utime(path, (time.time() - hours * 3_600,) * 2)


def test_past_days_are_joined_once_and_today_when_it_is_worth_it(tmp_path: Path) -> None:
    for k in range(3):
        write_events(tmp_path, "orders", [order(k)], time_ms=NOW)
        write_events(tmp_path, "orders", [order(10 + k)], time_ms=NOW + DAY)
        write_events(tmp_path, "orders", [order(20 + k)], time_ms=TODAY)
    before = rows(tmp_path)
    done = compact(tmp_path, "orders")
    assert done.days == ("2026-05-28", "2026-05-29")
    assert (done.files_before, done.files_after) == (9, 5)
    assert compact(tmp_path, "orders").days == ()
    assert compact(tmp_path, "orders", every=True).files_after == 3
    assert rows(tmp_path) == before
    assert positions(tmp_path, "orders") == {0: 9}


def test_vacuum_deletes_what_is_old_and_unused_and_nothing_else(tmp_path: Path) -> None:
    for k in range(3):
        write_events(tmp_path, "orders", [order(k)])
    before, replaced = rows(tmp_path), [Path(each) for each in files(tmp_path, "orders")]
    compact(tmp_path, "orders")
    at = version(tmp_path, "orders")
    orphan = replaced[0].with_name("part-00000-of-a-killed-writer.parquet")
    orphan.write_bytes(replaced[0].read_bytes())
    assert vacuum(tmp_path, "orders", 1) == []  # a running writer's files look the same
    assert rows(tmp_path, version=at - 1) == before
    age([orphan], 3)
    assert [Path(each).name for each in vacuum(tmp_path, "orders", 2, execute=False)] == [orphan.name]
    assert orphan.exists()
    vacuum(tmp_path, "orders", 2)
    assert not orphan.exists()
    assert rows(tmp_path) == before
    assert len(active_files(tmp_path, "orders")) == 1
