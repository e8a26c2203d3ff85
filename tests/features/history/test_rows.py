"""Whom and when: what is read, and the one clear error of what cannot be."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest

from features.history import EntityRowsError
from features.history.rows import read_rows
from features.plan import load

PLAN = load()
DEALER = [PLAN.views["dealer_orders"]]
NOON = datetime(2017, 6, 1, 12, tzinfo=UTC)
NOON_MS = 1_496_318_400_000


def read(times: Any, keys: Any = ("367", "412"), kind: Any = None, **more: Any) -> Any:
    frame = pa.table({"dealer_id": keys, "event_timestamp": pa.array(times, kind), **more})
    return read_rows(frame, DEALER, ["dealer_orders__count_1h"], clock=lambda: 1.6e9)


@pytest.mark.parametrize(
    "times",
    [
        [NOON, NOON + timedelta(hours=1)],
        [NOON_MS, NOON_MS + 3_600_000],
        [str(NOON_MS), str(NOON_MS + 3_600_000)],
        ["2017-06-01T12:00:00Z", "2017-06-01 15:00:00.000+02:00"],
        ["20170601T120000Z", "2017-06-01T13:00:00.0009+00:00"],
        [NOON.astimezone(timezone(timedelta(hours=-5))), NOON + timedelta(hours=1, microseconds=999)],
    ],
)
def test_times_in_any_form_with_a_zone(times: list[Any]) -> None:
    assert read(times).time.tolist() == [NOON_MS, NOON_MS + 3_600_000]


def test_keys_are_text_and_whole_numbers_their_digits() -> None:
    for keys in (["367", "412"], [367, 412], pa.array(["367", "412"]).dictionary_encode()):
        rows = read([NOON_MS, NOON_MS], keys)
        assert rows.keys["dealer_id"].to_pylist() == ["367", "412"]


def test_entities_are_numbered_by_all_of_their_keys() -> None:
    frame = pa.table(
        {"dealer_id": ["1", "1", "2", "1"], "category": ["a", "b", "a", "a"], "event_timestamp": [NOON_MS] * 4}
    )
    entities, number = read_rows(frame, [PLAN.views["dealer_category_orders"]]).entities(
        ["dealer_id", "category"]
    )
    named = [(row["dealer_id"], row["category"]) for row in entities.to_pylist()]
    assert [named[i] for i in number] == [("1", "a"), ("1", "b"), ("2", "a"), ("1", "a")]
    assert len(named) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"times": [NOON.replace(tzinfo=None)] * 2, "kind": pa.timestamp("us")}, "no time zone"),
        ({"times": ["2017-06-01T12:00:00Z", "2017-06-01T12:00:00"]}, "row 2: .* has no time zone"),
        ({"times": ["2017-06-01T12:00:00Z", "noon"]}, "row 2: event_timestamp 'noon' is not a time"),
        ({"times": ["2017-06-01T12:00:00Z", "20170601"]}, "row 2: .* has no time zone"),
        ({"times": [NOON_MS, None]}, "row 2 has no event_timestamp"),
        ({"times": [1.5e12, 1.5e12]}, "type double"),
        ({"times": [NOON_MS, 1_600_000_000_001]}, "1 row lies in the future: row 2 .*2020-09-13T12:26:40Z"),
        ({"times": [1_496_318_400, 1_496_318_400]}, "2 rows lie outside 2000 to 2100: row 1 has .*1970"),
        ({"times": [-(2**62), NOON_MS]}, "1 row lies outside"),
        ({"times": [NOON_MS] * 2, "keys": ["367", None]}, "row 2 has no dealer_id"),
        ({"times": [NOON_MS] * 2, "keys": [1.5, 2.5]}, "dealer_id is of type double"),
        ({"times": [NOON_MS] * 2, "dealer_orders__count_1h": [1, 2]}, "would be overwritten"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(EntityRowsError, match=message):
        read(**given)


def test_missing_columns_are_named_with_those_there_are() -> None:
    frame = pa.table({"dealer": ["1"], "event_timestamp": [NOON_MS]})
    with pytest.raises(EntityRowsError, match="dealer_id is missing; there are dealer, event_timestamp, and"):
        read_rows(frame, DEALER)
    with pytest.raises(EntityRowsError, match="event_timestamp are missing; there are no columns"):
        read_rows(pa.table({}), DEALER)
