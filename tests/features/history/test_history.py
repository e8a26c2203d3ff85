"""Values from a lake equal a recomputation in plain Python from what was written to it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectors.lake import LakeFileMissingError, LakeLayoutError
from features.history import METADATA_KEY, EntityRowsError, History, UnknownFeatureError
from features.plan import load
from tests.features.history.oracle import DAY, HOUR, PLAN, answers, same
from tests.lake_tables import order, write_events

START = 1_483_228_800_000
SERVICES = list(PLAN["services"])
KEYS = {view["name"]: view["entity"] for view in PLAN["views"]}


def year(count: int, seed: int) -> list[dict[str, Any]]:
    """Order lines of a hundred days at a few dealers, some ids twice, times on edges among them."""
    rng = np.random.default_rng(seed)
    times = START + rng.integers(0, 100 * DAY, count)
    times = np.where(rng.random(count) < 0.1, times // DAY * DAY, times)
    orders = [
        order(
            i,
            dealer_id=f"D{rng.integers(0, 5)}",
            customer_id=None if rng.random() < 0.3 else f"C{rng.integers(0, 60)}",
            product_id=f"P{rng.integers(0, 25)}",
            category=["GROCERY", "MEAT"][rng.integers(0, 2)],
            quantity=int(rng.integers(0, 9)),
            amount=float(rng.integers(0, 10_000)) / 100,
            event_time=int(at),
        )
        for i, at in enumerate(times)
    ]
    again = rng.integers(0, count, count // 20)
    return orders + [dict(orders[i]) for i in again]


def frame(seed: int, count: int, start: int = START - DAY, days: int = 220) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "label": rng.random(count),
            "dealer_id": [f"D{i}" for i in rng.integers(0, 6, count)],
            "category": [["GROCERY", "MEAT", "NONE"][i] for i in rng.integers(0, 3, count)],
            "product_id": [f"P{i}" for i in rng.integers(0, 27, count)],
            "event_timestamp": start + rng.integers(0, days * DAY, count),
        }
    )


def check(found: pa.Table, logs: dict[str, list[dict[str, Any]]], *, arrival: bool = False) -> None:
    """Every value and status of every row against the oracle. `logs` hold each topic's events in log order."""
    for row in found.to_pylist():
        for view in PLAN["views"]:
            mine = [
                event
                for event in logs.get(view["source_topic"], [])
                if all(event[key] == row[key] for key in view["entity"])
            ]
            wanted = answers(view["name"], mine, row["event_timestamp"], arrival=arrival)
            for feature in view["features"]:
                name = f"{view['name']}__{feature['name']}"
                value, status = wanted[feature["name"]]
                assert same(feature["function"], row[name], value), (name, row[name], value)
                assert row[f"{name}__status"] == status, (name, row["event_timestamp"])


def test_all_features_over_a_lake_equal_the_oracle(tmp_path: Path) -> None:
    events = year(900, seed=3)
    for start in range(0, len(events), 250):
        write_events(tmp_path, "orders", events[start : start + 250])
    asked = frame(seed=4, count=60)
    with History(load(), SERVICES, tmp_path) as history:
        found = history.of(asked, statuses=True)
        assert history.latest_ms() == max(event["event_time"] for event in events)
    assert found.select(asked.column_names).equals(asked)  # the order of rows and every other column
    assert found["dealer_orders__count_1h"].type == pa.int64()
    assert {"UNKNOWN", "EMPTY", "STALE", "PRESENT"} == set(
        found["dealer_orders__count_24h__status"].to_pylist()
    )
    check(found, {"orders": events})


def test_late_events_are_in_or_only_what_had_come(tmp_path: Path) -> None:
    events = sorted(year(90, seed=8), key=lambda event: event["event_time"])
    rng = np.random.default_rng(1)
    for each in events:
        each["came"] = each["event_time"] + int(rng.choice([50, 5_000, 3 * DAY, 60 * DAY]))
    log = sorted(events, key=lambda event: event["came"])
    for each in log:
        record = {name: value for name, value in each.items() if name != "came"}
        write_events(tmp_path, "orders", [record], time_ms=each["came"])
    asked = frame(seed=5, count=50)
    with History(load(), SERVICES, tmp_path) as history:
        late = history.of(asked, statuses=True)
    with History(load(), SERVICES, tmp_path, as_of="arrival") as history:
        known = history.of(asked, statuses=True)
        assert history.origin.as_of == "arrival"
    check(late, {"orders": log})
    check(known, {"orders": log}, arrival=True)
    assert not late.equals(known)


def test_what_was_refused_online_is_no_event(tmp_path: Path) -> None:
    good = [order(i, dealer_id="D1", event_time=START + i * HOUR) for i in range(5)]
    bad: list[Any] = [
        b"poison", None, order(90, dealer_id="D1", amount=-1.0), order(91, dealer_id="D1", currency="usd"),
        order(92, dealer_id="D1", amount=float("nan")), order(93, dealer_id="D1", product_id=""),
        order(94, dealer_id="D1", event_time=TOO_EARLY), order(95, dealer_id="D1", order_id="x" * 201),
    ]  # fmt: skip
    # A refused event does not use its id up.
    write_events(tmp_path, "orders", [order(0, dealer_id="D1", quantity=-1), *bad, *good])
    asked = pa.table({"dealer_id": ["D1"], "event_timestamp": [START + DAY]})
    with History(load(), ["dealer_orders"], tmp_path) as history:
        (row,) = history.of(asked).to_pylist()
    assert row["dealer_orders__count_90d"] == 5
    assert row["dealer_orders__amount_sum_90d"] == sum(each["amount"] for each in good)


TOO_EARLY = 946_684_800_000


def test_an_id_is_the_same_event_for_its_dealer_only_and_at_its_first_place(tmp_path: Path) -> None:
    first = order(1, dealer_id="D1", amount=1.0, event_time=START)
    log = [
        first,
        {**first, "amount": 2.0, "event_time": START + 1},
        {**first, "dealer_id": "D2", "amount": 4.0},
    ]
    write_events(tmp_path, "orders", log)
    asked = pa.table({"dealer_id": ["D1", "D2"], "event_timestamp": [START + HOUR] * 2})
    with History(load(), ["dealer_orders.amount_sum_24h"], tmp_path) as history:
        assert history.of(asked)["dealer_orders__amount_sum_24h"].to_pylist() == [1.0, 4.0]


def test_a_row_sees_its_own_moment_and_nothing_later(tmp_path: Path) -> None:
    """The window of a day's hop reaches to the end of the day; an event of the same day's evening is a leak."""
    write_events(tmp_path, "orders", [order(1, product_id="P", event_time=START + 20 * HOUR)])
    times = [START + 20 * HOUR - 1, START + 20 * HOUR]
    with History(load(), ["product"], tmp_path) as history:
        found = history.of(pa.table({"product_id": ["P", "P"], "event_timestamp": times}), statuses=True)
    assert found["product_demand__count_7d"].to_pylist() == [None, 1]
    assert found["product_demand__count_7d__status"].to_pylist() == ["UNKNOWN", "PRESENT"]


def test_a_history_stays_at_its_version_and_says_which(tmp_path: Path) -> None:
    write_events(tmp_path, "orders", [order(1, dealer_id="D1", event_time=START)])
    asked = pa.table({"dealer_id": ["D1"], "event_timestamp": [START + HOUR]})
    with History(load(), ["dealer"], tmp_path) as history:
        write_events(tmp_path, "orders", [order(2, dealer_id="D1", event_time=START)])
        found = history.of(asked)
        again = history.of(asked)
    assert found["dealer_orders__count_24h"].to_pylist() == [1]
    assert found.equals(again)
    origin = json.loads(found.schema.metadata[METADATA_KEY])
    assert origin["versions"] == {"orders": 1, "chats.enriched": None, "feedback": None}
    assert origin["positions"] == {"orders": {"0": 1}, "chats.enriched": {}, "feedback": {}}
    with History(load(), ["dealer"], tmp_path) as history:
        assert history.of(asked)["dealer_orders__count_24h"].to_pylist() == [2]


def test_an_entity_of_many_events_and_many_entities_come_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.history.lake_events._CHUNK", 64)
    monkeypatch.setattr("features.history.lake_events._BATCH", 16)
    monkeypatch.setattr("features.history.windows._ROWS", 7)
    events = year(600, seed=11)
    write_events(tmp_path, "orders", events)
    with History(load(), SERVICES, tmp_path) as history:
        check(history.of(frame(seed=12, count=40), statuses=True), {"orders": events})


def test_choosing_views_and_features(tmp_path: Path) -> None:
    names = ["product", "dealer_orders:count_1h", "dealer_orders.amount_std_7d"]
    with History(load(), names, tmp_path) as history:
        assert history.columns[:2] == ["dealer_orders__count_1h", "dealer_orders__amount_std_7d"]
        assert len(history.columns) == 2 + len(load().views["product_demand"].features)
    for wrong, message in (
        ("dealr", "did you mean dealer"),
        ("dealer_orders.count_1d", "dealer_orders has no feature 'count_1d'; did you mean count_"),
    ):
        with pytest.raises(UnknownFeatureError, match=message):
            History(load(), [wrong], tmp_path)
    with pytest.raises(UnknownFeatureError, match="no feature is asked for"):
        History(load(), [], tmp_path)


def test_a_lake_that_cannot_be_read(tmp_path: Path) -> None:
    asked = pa.table({"dealer_id": ["D1"], "event_timestamp": [START + HOUR]})
    write_events(tmp_path, "orders", [order(1)])
    (file,) = (tmp_path / "orders").rglob("*.parquet")
    file.unlink()
    with History(load(), ["dealer"], tmp_path) as history, pytest.raises(LakeFileMissingError):
        history.of(asked)
    (log,) = (tmp_path / "orders" / "_delta_log").glob("*0.json")
    log.write_text(log.read_text().replace('"dealeriq.layout":"1"', '"dealeriq.layout":"9"'))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(LakeLayoutError, match="layout 9"):
        History(load(), ["dealer"], tmp_path, scratch=scratch)
    assert not list(scratch.iterdir())


def test_bad_rows_are_refused_before_the_lake_is_read(tmp_path: Path) -> None:
    with History(load(), ["dealer"], tmp_path) as history, pytest.raises(EntityRowsError, match="no time zone"):
        history.of(pa.table({"dealer_id": ["D1"], "event_timestamp": ["2017-01-01"]}))
