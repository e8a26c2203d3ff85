"""The warehouse over a lake that is written here: what is kept, what is told, and that it is swapped whole."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from lake_tables import messages, order, schema_of, write_events

from connectors.lake import LakeTable, Rows, lake_of, version
from dealeriq.warehouse.build import (
    PROJECT,
    WarehouseBusyError,
    WarehouseError,
    _alone,
    _record,
    build,
    check,
)
from dealeriq.warehouse.contents import NoWarehouseError, contents
from dealeriq.warehouse.schedule import _BUILT_AT, keep_built
from dealeriq.warehouse.settings import WarehouseSettings
from dealeriq.warehouse.sources import TOPICS, create_sources
from schemas.catalogue import CATALOGUE
from streams.metrics import REGISTRY

pytestmark = pytest.mark.timeout(900)  # dbt alone takes some 20 s of a core
DAY = 86_400_000
NOON = 1_500_033_600_000  # 2017-07-14 12:00 UTC


def dealer(who: str, at: int, **more: Any) -> dict[str, Any]:
    return {"dealer_id": who, "name": f"Dealer {who}", "region": None, "event_time": at} | more


def product(name: str, at: int) -> dict[str, Any]:
    plain = {"name": name, "category": "GROCERY", "deleted": False}
    absent = ("subcategory", "product_type", "brand", "manufacturer_id", "package_size", "price")
    return {"product_id": name, "event_time": at, **plain, **dict.fromkeys(absent)}


def chat(number: int, sender: str) -> dict[str, Any]:
    return {
        "event_id": f"c{number}", "conversation_id": f"t{number // 2}", "dealer_id": "D1", "customer_id": None,
        "sender": sender, "text": f"text {number}", "language": "en", "event_time": NOON + number,
    }  # fmt: skip


def enriched(number: int, intent: str, sentiment: float) -> dict[str, Any]:
    message = chat(number, "customer") | {"event_id": f"e{number}", "cause_id": f"c{number}"}
    return message | {
        "intent": intent, "intent_score": 0.5 + number / 100, "sentiment": sentiment, "urgency": 0.2,
        "encoder": "x",
    }  # fmt: skip


def judged(number: int, about: str, value: float, by: str = "a", **more: Any) -> dict[str, Any]:
    plain = {"dealer_id": "D1", "subject_type": "chat", "kind": "rating", "comment": None, "source": by}
    named = {"event_id": f"f{number}", "subject_id": about, "value": value, "event_time": NOON + DAY + number}
    return plain | named | more


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lake with repeats, deletes, poison and rows out of bounds, and the warehouse over it."""
    folder = tmp_path_factory.mktemp("warehouse")
    root = folder / "lake"
    lines = [order(n, event_time=NOON + n * DAY // 10) for n in range(40)]
    write_events(root, "orders", [*lines, lines[3], order(99, quantity=-1), b"poison"])
    write_events(root, "orders", [lines[5] | {"amount": 1e6}], partition=1, time_ms=1_790_000_000_000)
    write_events(root, "dealers", [dealer(f"D{n}", NOON) for n in range(8)])
    write_events(root, "dealers", [dealer("D1", NOON + 2, name="New"), dealer("D1", NOON + 1, name="Late")])
    gone = messages("dealers", [None], offset=10)
    gone[0].name_key = b"D2"
    LakeTable(root, "dealers").append(Rows("dealers", schema_of("dealers")).of(gone), {0: 11})
    write_events(root, "products", [product(f"P{n}", NOON) for n in range(39)])
    write_events(root, "chats", [chat(n, "customer" if n % 2 else "dealer") for n in range(8)])
    write_events(root, "chats.enriched", [enriched(1, "price", 0.5), enriched(0, "stock", -0.5)])
    ratings = [
        judged(0, "c1", 5, "a"),
        judged(1, "c1", 4, "b"),
        judged(2, "c3", 1, "a"),
        judged(3, "c3", 2, "a"),
    ]
    write_events(root, "feedback", [*ratings, judged(4, "c5", -1, kind="thumb")])
    file = folder / "house" / "warehouse.duckdb"
    report = build(lake_of(root), file)
    return root, file, report


def ask(file: Path, sql: str) -> list[Any]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_staging_keeps_each_id_once_and_counts_what_it_leaves_out(built: Any) -> None:
    _, file, report = built
    assert report.failed == {}
    assert (report.models, report.tests > 30) == (12, True)
    (orders,) = ask(file, "SELECT * EXCLUDE topic FROM staging.row_accounts WHERE topic = 'orders'")
    # records, unreadable, tombstones, out of bounds, repeated, kept
    assert orders == (44, 1, 0, 1, 2, 40)
    # Of an id the first position counts, not the larger amount that came later.
    assert ask(file, "SELECT amount FROM staging.stg_orders WHERE event_id = 'e5'") == [(1.25,)]
    assert ask(file, "SELECT name FROM staging.stg_dealers WHERE dealer_id = 'D1'") == [("New",)]
    # A deleted dealer is not listed, and still known by its orders.
    assert ask(file, "SELECT count(*) FROM staging.stg_dealers WHERE dealer_id = 'D2'") == [(0,)]
    assert ask(file, "SELECT is_listed FROM marts.dealers WHERE dealer_id = 'D2'") == [(False,)]


def test_marts_hold_activity_demand_and_outcomes(built: Any) -> None:
    _, file, _ = built
    assert ask(file, "SELECT sum(lines), sum(units) FROM marts.dealer_activity") == [(40, 120)]
    found = ask(
        file, "SELECT day, lines, messages, feedback FROM marts.dealer_activity WHERE dealer_id = 'D1' LIMIT 2"
    )
    assert len(found) == 2
    demand = ask(
        file, "SELECT product_id, units, is_listed FROM marts.product_demand WHERE product_id IN ('P3', 'P39')"
    )
    assert sorted(demand) == [("P3", 4, True), ("P39", 5, False)]
    outcomes = ask(
        file,
        "SELECT conversation_id, messages, intent, rating, verdict, outcome "
        "FROM marts.conversations_with_outcomes ORDER BY 1",
    )
    assert outcomes == [
        ("t0", 2, "price", 4.5, None, "good"),
        ("t1", 2, None, 2.0, None, "poor"),
        ("t2", 2, None, None, -1.0, "poor"),
        ("t3", 2, None, None, None, None),
    ]


def test_what_a_build_read_is_written_down(built: Any) -> None:
    root, file, _ = built
    tables, versions, when = contents(file)
    assert dict(versions) == {name: None if name == "labels" else version(root, name) for name in TOPICS}
    assert when.endswith("Z")
    assert ("marts", "dealers") in {(each.schema, each.name) for each in tables}
    assert not any(each.schema == "lake" for each in tables)
    (row,) = ask(file, "SELECT positions FROM meta.builds WHERE topic = 'orders'")
    assert json.loads(row[0]) == {"0": 43, "1": 1}


def test_the_history_of_builds_goes_on(built: Any, tmp_path: Path) -> None:
    root, file, _ = built
    fresh = tmp_path / "fresh.duckdb"
    with duckdb.connect(str(fresh)) as connection:
        _record(connection, file, create_sources(connection, lake_of(root)))
    assert ask(fresh, "SELECT count(DISTINCT built_at), count(*) FROM meta.builds") == [(2, 14)]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with one model and no tests, in place of the whole."""
    project = shutil.copytree(PROJECT, tmp_path / "warehouse")
    for folder in ("models/marts", "models/accounts", "tests"):
        shutil.rmtree(project / folder)
    for model in (project / "models/staging").iterdir():
        if model.name not in ("_sources.yml", "stg_orders.sql"):
            model.unlink()
    (project / "tests").mkdir()
    monkeypatch.setattr("dealeriq.warehouse.build.PROJECT", project)
    return project


def test_it_is_built_on_a_schedule_also_after_a_build_that_failed(small: Path, tmp_path: Path) -> None:
    root = tmp_path / "lake"
    write_events(root, "orders", [order(0)])
    commit = root / "orders/_delta_log/00000000000000000001.json"
    whole = commit.read_bytes()
    commit.write_bytes(whole[:40])
    often = WarehouseSettings().model_copy(update={"every_s": 0.1})
    stop = threading.Event()
    running = threading.Thread(target=keep_built, args=(often, lake_of(root), tmp_path, stop))
    running.start()
    try:
        wait(lambda: outcome("failed"))
        commit.write_bytes(whole)
        wait(lambda: outcome("built"))
    finally:
        stop.set()
        running.join(240)
    assert not running.is_alive()
    file = WarehouseSettings().path(tmp_path)
    assert ask(file, "SELECT count(*) FROM staging.stg_orders") == [(1,)]
    assert time.time() - _BUILT_AT._value.get() < 600


def outcome(name: str) -> float:
    labels = {"stage": "warehouse", "outcome": name}
    return REGISTRY.get_sample_value("dealeriq_stage_records_total", labels) or 0.0


def wait(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_failing_test_leaves_the_warehouse_as_it_was(built: Any, small: Path) -> None:
    root, file, _ = built
    (small / "tests/never.sql").write_text("select 1 as planted from {{ ref('stg_orders') }} limit 1")
    before = file.read_bytes()
    with pytest.raises(WarehouseError, match="never: Got 1 result"):
        build(lake_of(root), file)
    assert file.read_bytes() == before


def test_the_tests_run_over_the_file_and_find_what_was_changed_by_hand(built: Any, tmp_path: Path) -> None:
    _, file, _ = built
    copy = tmp_path / "warehouse.duckdb"
    copy.write_bytes(file.read_bytes())
    with duckdb.connect(str(copy)) as connection:
        connection.execute("UPDATE marts.product_demand SET units = units + 1 WHERE product_id = 'P3'")
    assert list(check(copy).failed) == ["product_demand_sums_to_staging"]


def test_there_is_one_build_at_a_time_and_no_contents_before_the_first(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.duckdb"
    with pytest.raises(NoWarehouseError):
        contents(file)
    with pytest.raises(NoWarehouseError):
        check(file)
    with _alone(file), pytest.raises(WarehouseBusyError):
        build(lake_of(tmp_path / "lake"), file)


def test_the_project_reads_the_topics_that_the_sources_make() -> None:
    import yaml

    read = yaml.safe_load((Path(__file__).parents[2] / "warehouse/models/staging/_sources.yml").read_text())
    assert [each["name"] for each in read["sources"][0]["tables"]] == list(TOPICS)
    assert set(TOPICS) <= set(CATALOGUE)
