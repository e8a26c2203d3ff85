"""The lake view keeps the contract of a view: whatever is repeated or broken off, rows equal records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from lake_tables import FakeMessage, messages, order

from connectors.lake import relation, version
from connectors.registry import RegistryUnavailableError
from schemas.catalogue import topic
from streams.views.lake_view import LakeView

TOPICS = ("orders", "orders.dlq", "documents")


def fetch(number: int) -> Any:
    return topic("orders").schema


@pytest.fixture
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def records(count: int, *, start: int = 0) -> list[FakeMessage]:
    """Records of several topics and partitions, as a consumer would interleave them."""
    found: list[FakeMessage] = []
    for partition in range(2):
        lines = [order(1_000 * partition + start + k) for k in range(count)]
        found += messages("orders", lines, partition=partition, offset=start)
    found += messages("orders.dlq", [b"odd", None] * (count // 2), offset=start)
    return sorted(found, key=lambda each: (each.at, each.name))


def dump(sql: Any, root: Path) -> dict[str, list[Any]]:
    return {name: relation(sql, root, name).order("_partition, _offset").fetchall() for name in TOPICS}


def test_a_fresh_store_has_no_position_and_gets_one_with_its_first_batch(tmp_path: Path) -> None:
    view = LakeView(tmp_path, TOPICS, fetch)
    assert view.positions() == {}
    view.apply(records(4))
    assert view.positions() == {("orders", 0): 4, ("orders", 1): 4, ("orders.dlq", 0): 4}


def test_repeating_a_batch_changes_nothing(tmp_path: Path, sql: Any) -> None:
    view = LakeView(tmp_path, TOPICS, fetch)
    view.apply(records(10))
    before, at = dump(sql, tmp_path), version(tmp_path, "orders")
    view.apply(records(10))
    LakeView(tmp_path, TOPICS, fetch).apply(records(10))
    assert dump(sql, tmp_path) == before
    assert version(tmp_path, "orders") == at


def test_a_batch_that_was_half_applied_is_completed(tmp_path: Path, sql: Any) -> None:
    LakeView(tmp_path, TOPICS, fetch).apply(records(6))
    LakeView(tmp_path, TOPICS, fetch).apply([each for each in records(10) if each.number == 1])
    LakeView(tmp_path, TOPICS, fetch).apply(records(10))
    whole = tmp_path / "whole"
    LakeView(whole, TOPICS, fetch).apply(records(10))
    assert dump(sql, tmp_path) == dump(sql, whole)


def test_a_restarted_view_goes_on_from_the_position_in_the_store(tmp_path: Path, sql: Any) -> None:
    LakeView(tmp_path, TOPICS, fetch).apply(records(5))
    second = LakeView(tmp_path, TOPICS, fetch)
    assert second.positions()["orders", 1] == 5
    second.apply(records(5, start=5))
    assert [row[0] for row in relation(sql, tmp_path, "orders").project("_offset").order("ALL").fetchall()] == [
        number for number in range(10) for _ in range(2)
    ]


def test_while_the_registry_is_away_nothing_is_written_and_nothing_is_poison(tmp_path: Path, sql: Any) -> None:
    away = True

    def fetch_later(number: int) -> Any:
        if away:
            raise RegistryUnavailableError("away")
        return fetch(number)

    view = LakeView(tmp_path, ("orders",), fetch_later)
    batch = messages("orders", [order(k) for k in range(3)])
    for _ in range(2):
        with pytest.raises(RegistryUnavailableError):
            view.apply(batch)
    assert view.positions() == {}
    away = False
    view.apply(batch)
    assert relation(sql, tmp_path, "orders").filter("_raw IS NULL").aggregate("count(*)").fetchall() == [(3,)]


def test_a_folder_that_takes_no_files_is_an_error_of_ours_and_moves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file where the folder should be")
    view = LakeView(tmp_path / "lake", ("orders",), fetch)
    with pytest.raises(Exception, match="lake") as caught:
        view.apply(messages("orders", [order(0)]))
    assert type(caught.value).__module__.startswith("connectors.lake")
