"""Lake tables on a local folder: rows equal records, positions are atomic, and what is broken says so."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import fastavro
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from lake_tables import NOW, FakeMessage, messages, order, schema_of, write_events

from connectors.lake import (
    LakeBrokenError,
    LakeConflictError,
    LakeFileMissingError,
    LakeLayoutError,
    LakeReplacedError,
    LakeTable,
    LakeTableMissingError,
    Rows,
    active_files,
    arrow_schema,
    columns,
    default_topics,
    files,
    positions,
    put_aside,
    refresh,
    relation,
    scan_sql,
    translated,
    version,
)
from schemas.catalogue import CATALOGUE, topic
from schemas.codec import Encoder, plain

DAY = 86_400_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "the lake's é"


@pytest.fixture
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def ids(sql: Any, root: Path, **how: Any) -> list[tuple[int, int]]:
    rows = relation(sql, root, "orders", **how).project("_partition, _offset").order("ALL").fetchall()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_topic_of_the_catalogue_has_a_layout_that_takes_poison_and_tombstones(
    name: str, root: Path, sql: Any
) -> None:
    write_events(root, name, [b"\x00 poison", None])
    (first, second) = relation(sql, root, name).order("_offset").fetchall()
    row = dict(zip(arrow_schema(name).names, first, strict=True))
    assert row["_crc"] == crc32(b"\x00 poison")
    assert not row["_tombstone"]
    assert row["value" if topic(name).is_dead_letters else "_raw"] == b"\x00 poison"
    assert dict(zip(arrow_schema(name).names, second, strict=True))["_tombstone"]


def test_the_default_topics_are_all_but_tiles_and_imports() -> None:
    assert set(CATALOGUE) - set(default_topics()) == {
        each for each in CATALOGUE if each.startswith(("tiles.", "imports"))
    }


def test_a_row_is_its_record_and_where_it_came_from(root: Path, sql: Any) -> None:
    record = order(4, customer_id=None, event_time=7)
    write_events(root, "orders", [record], partition=2, offset=11, time_ms=NOW)
    (row,) = relation(sql, root, "orders").fetchall()
    found = dict(zip(arrow_schema("orders").names, row, strict=True))
    value = Encoder("orders", 1).encode(record)
    assert {name: found[name] for name in record} == record
    assert {name: each for name, each in found.items() if name not in record} == {
        "_partition": 2, "_offset": 11, "_timestamp": NOW, "_key": "D4", "_source": "/tests",
        "_crc": crc32(value), "_tombstone": False, "_raw": None, "_date": "2026-05-28",
    }  # fmt: skip


def test_a_time_that_is_none_and_a_key_that_is_no_text_still_make_a_row() -> None:
    odd = FakeMessage("orders", 0, 0, None, b"\xff\x00", -1)
    far = FakeMessage("orders", 0, 1, None, None, 9_999_999_999_999_999)
    rows = Rows("orders", schema_of("orders")).of([odd, far])
    assert rows["_timestamp"].to_pylist() == [None, None]
    assert rows["_date"].to_pylist() == ["1970-01-01"] * 2
    assert rows["_key"].to_pylist() == ["\\xff\x00", None]


def test_a_number_that_does_not_fit_its_column_makes_poison_of_its_record_alone() -> None:
    good, bad = messages("orders", [order(1), order(2)])
    wide = dict(topic("orders").schema or {})
    wide["fields"] = [f | {"type": "long"} if f["name"] == "line" else f for f in wide["fields"]]
    buffer = io.BytesIO()
    buffer.write(bad.data[:5])  # type: ignore[index]
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(plain(wide)), order(2, line=2**40))
    bad.data = buffer.getvalue()
    rows = Rows("orders", schema_of("orders")).of([good, bad])
    assert rows["line"].to_pylist() == [0, None]
    assert rows["event_id"].to_pylist() == ["e1", None]
    assert rows["_raw"].to_pylist() == [None, bad.data]


def test_maps_lists_and_headers_keep_their_content(root: Path, sql: Any) -> None:
    score = {
        "event_id": "e", "dealer_id": "D1", "model": "m", "model_version": "1", "subject_type": "dealer",
        "subject_id": "D1", "score": 0.5, "features": {"a": 1.5, "b": None}, "latency_ms": 1.0,
        "cause_id": "c", "event_time": 5,
    }  # fmt: skip
    write_events(root, "scores", [score])
    assert relation(sql, root, "scores").project("features").fetchall() == [({"a": 1.5, "b": None},)]
    letter = FakeMessage("orders.dlq", 0, 0, b"x", b"k", NOW, [("dlq_error", b"why"), ("ce_source", b"/s")])
    rows = Rows("orders.dlq", schema_of("orders.dlq")).of([letter])
    assert rows["headers"].to_pylist() == [
        [{"key": "dlq_error", "value": b"why"}, {"key": "ce_source", "value": b"/s"}]
    ]
    assert rows["_source"].to_pylist() == ["/s"]


def test_appending_the_same_records_twice_is_appending_them_once(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(k) for k in range(10)])
    before = version(root, "orders")
    write_events(root, "orders", [order(k) for k in range(10)], offset=0)
    assert version(root, "orders") == before
    write_events(root, "orders", [order(k) for k in range(5, 15)], offset=5)  # half of them are there
    assert ids(sql, root) == [(0, k) for k in range(15)]
    assert positions(root, "orders") == {0: 15}


def test_writers_that_overtake_each_other_leave_neither_gap_nor_duplicate(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(0)])
    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(k) for k in range(40)]))
    writers = [LakeTable(root, "orders") for _ in range(3)]
    assert [each.positions() for each in writers] == [{0: 1}] * 3

    def fill(writer: LakeTable, step: int) -> int:
        return sum(writer.append(rows.slice(k, step), {0: k + step}) for k in range(0, 40, step))

    with ThreadPoolExecutor() as pool:
        new = list(pool.map(fill, writers, (1, 2, 4)))
    assert sum(new) == 39
    assert ids(sql, root) == [(0, k) for k in range(40)]


def test_a_commit_that_was_overtaken_in_between_is_refused_as_a_whole(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(0)])
    late = LakeTable(root, "orders")
    late.positions()
    write_events(root, "orders", [order(1)])
    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(1), order(2)], offset=1))
    with pytest.raises(LakeConflictError, match="orders"):
        late._commit(rows, {0: 3})
    assert ids(sql, root) == [(0, 0), (0, 1)]


def test_a_table_that_another_writer_made_and_filled_in_the_same_moment_gets_each_row_once(
    root: Path, sql: Any
) -> None:
    class Overtaken(LakeTable):
        def _create(self) -> None:
            write_events(root, "orders", [order(0), order(1)])
            super()._create()

    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(0), order(1), order(2)]))
    assert Overtaken(root, "orders").append(rows, {0: 3}) == 1
    assert ids(sql, root) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("refilled", [False, True])
def test_a_table_that_went_while_it_was_written_to_is_refused(root: Path, refilled: bool) -> None:
    write_events(root, "orders", [order(0)])
    table = LakeTable(root, "orders")
    table.positions()
    shutil.rmtree(root / "orders")
    if refilled:
        for k in range(3):
            write_events(root, "orders", [order(k)])
    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(1)], offset=1))
    with pytest.raises(LakeReplacedError):
        table.append(rows, {0: 2})
    assert (root / "orders").exists() == refilled


def test_two_writers_of_different_partitions_do_not_disturb_each_other(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(0)])
    one, other = LakeTable(root, "orders"), LakeTable(root, "orders")
    make = Rows("orders", schema_of("orders"))
    one.positions(), other.positions()
    one.append(make.of(messages("orders", [order(1)], partition=1)), {1: 1})
    other.append(make.of(messages("orders", [order(2)], partition=2)), {2: 1})
    assert ids(sql, root) == [(0, 0), (1, 0), (2, 0)]
    assert positions(root, "orders") == {0: 1, 1: 1, 2: 1}


def test_positions_outlive_checkpoints_and_compaction(root: Path) -> None:
    for k in range(60):
        write_events(root, "orders", [order(k)])
    assert list((root / "orders/_delta_log").glob("*.checkpoint.parquet"))
    DeltaTable(root / "orders").optimize.compact()
    assert positions(root, "orders") == {0: 60}
    assert len(files(root, "orders")) == 1


def test_a_table_is_read_as_of_a_version_or_a_position(root: Path, sql: Any) -> None:
    for k in range(3):
        write_events(root, "orders", [order(k)], time_ms=NOW + k * DAY)
    write_events(root, "orders", [order(9)], partition=3)
    assert ids(sql, root, version=2) == [(0, 0), (0, 1)]
    assert positions(root, "orders", version=2) == {0: 2}
    assert ids(sql, root, positions={0: 2}) == [(0, 0), (0, 1)]
    assert ids(sql, root, positions={3: 1}) == [(3, 0)]
    assert ids(sql, root, positions={}) == []
    found = active_files(root, "orders")
    assert [each.uri for each in found] == files(root, "orders")
    assert [(each.date, each.rows) for each in found] == [
        ("2026-05-28", 1), ("2026-05-28", 1), ("2026-05-29", 1), ("2026-05-30", 1)
    ]  # fmt: skip
    assert all(Path(each.uri).stat().st_size == each.size for each in found)


def test_a_topic_without_a_table_has_no_rows_and_says_so_where_a_table_is_needed(root: Path, sql: Any) -> None:
    assert sql.sql(f"SELECT event_id, features FROM {scan_sql(root, 'scores')}").fetchall() == []
    for ask in (files, positions, version, columns):
        with pytest.raises(LakeTableMissingError, match="orders"):
            ask(root, "orders")
    write_events(root, "orders", [order(0)])
    with pytest.raises(LakeTableMissingError):
        files(root, "orders", version=77)


def test_a_new_field_becomes_a_column_and_older_rows_have_none(root: Path, sql: Any) -> None:
    table = LakeTable(root, "orders")
    older = Rows("orders", schema_of("orders")).of(messages("orders", [order(0)]))
    table.schema = table.schema.remove(table.schema.get_field_index("channel"))
    table.append(older.drop_columns(["channel"]), {0: 1})
    assert "channel" not in columns(root, "orders").names
    assert sql.sql(f"SELECT channel FROM {scan_sql(root, 'orders', select=['channel'])}").fetchall() == [
        (None,)
    ]
    write_events(root, "orders", [order(1)])
    assert relation(sql, root, "orders").order("_offset").project("channel").fetchall() == [
        (None,), ("store",)
    ]  # fmt: skip
    assert columns(root, "orders", version=1).names != columns(root, "orders").names


def test_a_field_that_went_leaves_its_column(root: Path, sql: Any) -> None:
    table = LakeTable(root, "orders")
    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(0)]))
    table.schema = table.schema.append(pa.field("gone", pa.string()))
    table.append(rows.append_column("gone", pa.array(["here"])), {0: 1})
    write_events(root, "orders", [order(1)])
    assert relation(sql, root, "orders").order("_offset").project("gone").fetchall() == [("here",), (None,)]


def test_a_column_of_another_type_is_refused_before_anything_is_written(root: Path) -> None:
    table = LakeTable(root, "orders")
    at = table.schema.get_field_index("amount")
    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(0)]))
    table.schema = table.schema.set(at, pa.field("amount", pa.string()))
    table.append(rows.set_column(at, "amount", pa.array(["1"])), {0: 1})
    with pytest.raises(LakeLayoutError, match="amount is string"):
        write_events(root, "orders", [order(1)])
    assert version(root, "orders") == 1


@pytest.mark.parametrize("layout", [None, "2"])
def test_a_table_of_another_layout_is_refused(root: Path, layout: str | None) -> None:
    DeltaTable.create(
        root / "orders",
        arrow_schema("orders"),
        configuration={} if layout is None else {"dealeriq.layout": layout},
        raise_if_key_not_exists=False,
    )
    with pytest.raises(LakeLayoutError, match="layout"):
        write_events(root, "orders", [order(0)])
    with pytest.raises(LakeLayoutError, match="layout"):
        files(root, "orders")


def test_a_commit_that_was_cut_off_is_named_and_nothing_is_written(root: Path) -> None:
    write_events(root, "orders", [order(0)])
    write_events(root, "orders", [order(1)])
    commit = root / "orders/_delta_log/00000000000000000002.json"
    whole = commit.read_bytes()
    commit.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LakeBrokenError, match=re.escape(f"{commit} is not whole")):
        write_events(root, "orders", [order(2)])
    commit.write_bytes(whole)
    assert positions(root, "orders") == {0: 2}


@pytest.mark.parametrize(
    "protocol",
    [
        {"minReaderVersion": 99, "minWriterVersion": 99},
        {
            "minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["ofTheFuture"], "writerFeatures": ["ofTheFuture"],
        },
    ],
)  # fmt: skip
def test_a_lake_of_a_newer_delta_version_is_refused(root: Path, protocol: dict[str, Any]) -> None:
    write_events(root, "orders", [order(0)])
    first = root / "orders/_delta_log/00000000000000000000.json"
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    first.write_text("\n".join(json.dumps({"protocol": protocol} if "protocol" in x else x) for x in lines))
    for act in (lambda: positions(root, "orders"), lambda: write_events(root, "orders", [order(1)])):
        with pytest.raises(LakeLayoutError, match=r"Unsupported|not supported"):
            act()
    assert len(list((root / "orders/_delta_log").glob("*.json"))) == 2


def test_a_table_put_aside_is_kept_and_filled_anew(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(0), order(1)])
    refresh(root, "orders")
    aside = Path(put_aside(root, "orders"))
    assert aside.parent == root / "aside"
    assert DeltaTable(aside).to_pyarrow_table().num_rows == 2
    with pytest.raises(LakeTableMissingError):
        positions(root, "orders")
    assert not (root / "current/orders").exists()
    with pytest.raises(LakeTableMissingError):
        put_aside(root, "orders")
    write_events(root, "orders", [order(0)])
    assert ids(sql, root) == [(0, 0)]


def test_data_without_its_commit_is_no_part_of_the_table(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(0)])
    write_events(root, "orders", [order(1)])
    (root / "orders/_delta_log/00000000000000000002.json").unlink()  # as if killed just before it
    assert ids(sql, root) == [(0, 0)]
    write_events(root, "orders", [order(1)])
    assert ids(sql, root) == [(0, 0), (0, 1)]


def test_a_missing_parquet_file_is_named(root: Path, sql: Any) -> None:
    write_events(root, "orders", [order(0)])
    write_events(root, "orders", [order(1)])
    Path(files(root, "orders")[0]).unlink()
    with pytest.raises(LakeFileMissingError, match=r"\.parquet"), translated("orders"):
        relation(sql, root, "orders").fetchall()


def test_a_foreign_commit_of_rows_does_not_move_positions(root: Path) -> None:
    write_events(root, "orders", [order(0)])
    rows = Rows("orders", schema_of("orders")).of(messages("orders", [order(1)], offset=1))
    write_deltalake(root / "orders", rows, mode="append")
    assert positions(root, "orders") == {0: 1}
