"""Inputs by hand: what a vector holds for times, ratios, codes, nulls and nonsense."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.inputs import (
    Calendar,
    Code,
    EventField,
    Feature,
    Holidays,
    InputsError,
    Log,
    Ratio,
    assemble,
    input_of,
    needed,
)
from models.rules import InsightRule, RuleError
from models.training.events import Stream
from models.training.holidays import holiday_days
from tests.lake_tables import NOW, order, write_events
from tests.models.year import DAY, START


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def one(each: object, time_ms: int, **columns: object) -> float:
    return float(assemble([each], columns, np.array([time_ms]))[0, 0])  # type: ignore[list-item]


@given(st.integers(0, 4_000_000_000_000))
@settings(max_examples=200, deadline=None)
def test_the_calendar_is_pythons(at: int) -> None:
    when = datetime.fromtimestamp(at / 1000, UTC)
    for part, value in (
        ("hour", when.hour),
        ("weekday", when.weekday()),
        ("day_of_month", when.day),
        ("day_of_year", when.timetuple().tm_yday),
    ):
        assert one(Calendar("x", part), at) == value


def test_holidays_ahead_exclude_today() -> None:
    days = holiday_days(np.array([ms("2017-06-01")]))
    holidays = Holidays("x", 7, days)
    assert one(holidays, ms("2017-12-24T10:00")) == 1  # Christmas Day
    assert one(holidays, ms("2017-12-25T00:00")) == 1  # New Year's Day, seven days on
    assert one(holidays, ms("2017-12-26T00:00")) == 1
    assert one(holidays, ms("2017-03-01")) == 0
    assert one(holidays, ms("2022-12-24")) >= 1  # it knows some years ahead
    assert one(Holidays("x", 7, ()), ms("2017-12-24")) == 0


def test_values_that_are_not_there_are_missing() -> None:
    inputs = (
        Feature("a", "v", "a"),
        EventField("b", "b"),
        Ratio("r", "a", "b", 2.0),
        Log("l", "b"),
        Code("c", "category", ("GROCERY", "MEAT")),
    )
    columns = {
        "v__a": pa.chunked_array([pa.array([1, None, 3, 4], pa.int64())]),
        "@b": [2.0, 1.0, 0.0, float("inf")],
        "category": ["MEAT", "GROCERY", "NEW", None],
        "unasked": [0, 0, 0, 0],
    }
    found = assemble(inputs, columns, np.zeros(4, np.int64))
    nan = np.nan
    wanted = [
        [1, 2, 1, np.log1p(2), 1],
        [nan, 1, nan, np.log1p(1), 0],
        [3, 0, nan, 0, nan],
        [4, nan, 0, nan, nan],
    ]
    assert np.allclose(found, wanted, equal_nan=True)
    assert found.dtype == np.float32
    assert needed(inputs) == ["v__a", "@b", "category"]
    del columns["@b"]
    with pytest.raises(InputsError, match="no column @b is given"):
        assemble(inputs, columns, np.zeros(4, np.int64))


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(InputsError, match="no part of a date"):
        Calendar("x", "minute")
    for wrong in ({"kind": "spline", "name": "x"}, {"kind": "log", "name": "x"}, {"name": "x"}):
        with pytest.raises(InputsError, match="cannot be read"):
            input_of(wrong)
    good = {"name": "r", "output": "q50", "threshold": 1.0, "severity": "notice", "message": "{score}"}
    assert InsightRule.of(good).to_dict() == {
        **good, "direction": "above", "over": "", "hysteresis": 0.0, "cool_down_ms": 86_400_000,
    }  # fmt: skip
    for change, message in (
        ({"severity": "loud"}, "severity 'loud'"),
        ({"direction": "up"}, "direction 'up'"),
        ({"hysteresis": -1.0}, "at least 0"),
        ({"message": "{dealer}"}, "the message names dealer"),
        ({"unknown": 1}, "cannot be read"),
    ):
        with pytest.raises(RuleError, match=message):
            InsightRule.of({**good, **change})


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=40)
)
@settings(max_examples=8, deadline=None)
def test_what_came_after_is_a_loop_over_the_events(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, int, int]]
) -> None:
    lake = tmp_path_factory.mktemp("after")
    events = [
        order(i, dealer_id=dealer, quantity=quantity, event_time=START + day * DAY)
        for i, (dealer, day, quantity) in enumerate(lines)
    ]
    write_events(lake, "orders", events)
    times = [START + day * DAY + edge for day in (-1, 0, 7, 29, 40) for edge in (-1, 0, 1)]
    rows = pa.table({"dealer_id": ["A", "B", "Z"] * 5, "event_timestamp": times})
    with Stream(lake) as stream:
        counts = stream.after(rows, "orders", ("dealer_id",), 7 * DAY)
        sums = stream.after(rows, "orders", ("dealer_id",), 7 * DAY, "quantity")
        cut = Stream(lake, START + 5 * DAY)
        with cut:
            known = cut.after(rows, "orders", ("dealer_id",), 7 * DAY)
    for at, row in enumerate(rows.to_pylist()):
        mine = [
            each
            for each in events
            if each["dealer_id"] == row["dealer_id"]
            and row["event_timestamp"] < each["event_time"] <= row["event_timestamp"] + 7 * DAY
        ]
        assert counts[at] == len(mine)
        assert sums[at] == sum(each["quantity"] for each in mine)
        assert known[at] == sum(each["event_time"] <= START + 5 * DAY for each in mine)


def test_an_event_from_a_clock_that_is_ahead_makes_no_outcome_known(tmp_path: Path) -> None:
    events = [order(i, event_time=START + i * DAY) for i in range(5)]
    write_events(tmp_path, "orders", [*events, order(9, event_time=NOW + 30 * DAY)])
    with Stream(tmp_path) as stream:
        assert stream.latest_ms("orders") == START + 4 * DAY
    write_events(tmp_path, "orders", [order(10, event_time=NOW + 60_000)])  # clocks differ a little
    with Stream(tmp_path) as stream:
        assert stream.latest_ms("orders") == NOW + 60_000


def test_a_category_is_shown_by_its_name_and_a_number_as_one() -> None:
    category = Code("c", "category", ("GROCERY", "MEAT"))
    assert [category.shown(each) for each in (0.0, 1.0, 0.5, 2.0, None)] == [
        "GROCERY", "MEAT", "0.5", "2", "unknown",
    ]  # fmt: skip
    assert Feature("f", "v", "count_7d").shown(12_345.678) == "12,346"
