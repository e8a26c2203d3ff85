"""Current tables against a plain fold of the records in Python."""

import random
from pathlib import Path
from typing import Any

import duckdb
import pytest
from lake_tables import messages, order, schema_of, write_events

from connectors.lake import LakeTable, Rows, compact, files, open_delta, positions, refresh, relation
from connectors.lake.table import read_positions


def rows(root: Path, name: str, shown: str) -> list[Any]:
    with duckdb.connect() as sql:
        return sorted(relation(sql, root, name, current=True).project(shown).fetchall())


def document(number: int, time_ms: int, text: str) -> dict[str, Any]:
    return {
        "document_id": f"d{number}", "dealer_id": None, "product_id": None, "kind": "manual",
        "title": "t", "text": text, "deleted": False, "event_time": time_ms,
    }  # fmt: skip


def test_each_event_id_is_once_and_as_it_came_first(tmp_path: Path) -> None:
    write_events(tmp_path, "orders", [order(0), order(1), order(0, amount=9.0), b"poison", None])
    assert refresh(tmp_path, "orders") == 4
    write_events(tmp_path, "orders", [order(1, amount=9.0), order(2), order(2, amount=9.0)])
    assert refresh(tmp_path, "orders") == 3
    assert rows(tmp_path, "orders", "event_id, amount") == [("e0", 0.0), ("e1", 0.25), ("e2", 0.5)]
    assert refresh(tmp_path, "orders") == 0
    for k in range(3, 12):
        write_events(tmp_path, "orders", [order(k)])
        refresh(tmp_path, "orders")
    compact(tmp_path, "orders", current=True)
    assert len(files(tmp_path, "orders", current=True)) == 1
    assert len(rows(tmp_path, "orders", "event_id")) == 12


@pytest.mark.parametrize("seed", range(3))
def test_the_latest_of_each_key_holds_and_tombstones_delete(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    expected: dict[str, tuple[int, str]] = {}
    for _ in range(5):
        batch: list[tuple[str, dict[str, Any] | None]] = []
        for k in range(pick.randrange(1, 12)):
            number = pick.randrange(5)
            key = f"d{number}"
            if pick.random() < 0.25:
                batch.append((key, None))
                expected.pop(key, None)
                continue
            time_ms, text = pick.randrange(8), f"{seed}-{k}-{pick.random()}"
            batch.append((key, document(number, time_ms, text)))
            if key not in expected or time_ms >= expected[key][0]:
                expected[key] = (time_ms, text)
        write_keyed(tmp_path, batch)
        if pick.random() < 0.7:
            refresh(tmp_path, "documents")
    refresh(tmp_path, "documents")
    found = {
        key: (time_ms, text) for key, time_ms, text in rows(tmp_path, "documents", "_key, event_time, text")
    }
    assert found == expected


def write_keyed(root: Path, batch: list[tuple[str, dict[str, Any] | None]]) -> None:
    """As write_events, with a key also on tombstones."""
    table = LakeTable(root, "documents")
    start = table.positions().get(0, 0)
    made = messages("documents", [record for _, record in batch], offset=start)
    for message, (key, _) in zip(made, batch, strict=True):
        message.name_key = key.encode()
    table.append(Rows("documents", schema_of("documents")).of(made), {0: start + len(batch)})


def test_a_current_table_says_up_to_where_it_is_true(tmp_path: Path) -> None:
    write_events(tmp_path, "orders", [order(0)], partition=1)
    write_events(tmp_path, "orders", [order(1)], partition=3)
    refresh(tmp_path, "orders")
    write_events(tmp_path, "orders", [order(2)], partition=3)
    assert read_positions(open_delta(tmp_path, "orders", current=True), "orders") == {1: 1, 3: 1}
    assert positions(tmp_path, "orders") == {1: 1, 3: 2}


@pytest.mark.parametrize("name", ["scores", "embeddings", "promotions", "orders.dlq"])
def test_every_topic_refreshes_or_has_nothing_to_refresh(tmp_path: Path, name: str) -> None:
    assert refresh(tmp_path, name) == 0
    write_events(tmp_path, name, [None, b"poison"])
    refresh(tmp_path, name)
