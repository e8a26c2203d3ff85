"""Windows at any moment equal a recomputation in plain Python, whatever came when."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.history.events import Events
from features.history.windows import Windows
from features.merge import Status
from features.plan import load
from features.sketch import coupon
from tests.features.history.oracle import DAY, HOUR, answers, same

PLAN = load()
NOW = 1_700_000_000_000
# Near the present, on the edges of minutes, hours and days, and anywhere in the last two hundred days.
TIMES = st.one_of(
    st.integers(NOW - 2 * HOUR, NOW),
    st.integers(NOW - 200 * DAY, NOW),
    st.builds(lambda edge, by: edge // DAY * DAY + by, st.integers(NOW - 100 * DAY, NOW), st.integers(-1, 1)),
)
EVENT = st.fixed_dictionaries(
    {
        "entity": st.integers(0, 2),
        "event_time": TIMES,
        "delay": st.one_of(st.just(0), st.integers(0, 5_000), st.integers(0, 120 * DAY)),
        "amount": st.integers(0, 100_000).map(lambda cents: cents / 100),
        "quantity": st.integers(0, 9),
        "discount": st.integers(0, 50),
        "customer_id": st.one_of(st.none(), st.integers(0, 30).map(str)),
        "product_id": st.integers(0, 200).map(str),
        "sentiment": st.floats(-1, 1),
        "urgency": st.floats(0, 1),
        "value": st.integers(-5, 5),
        "conversation_id": st.integers(0, 9).map(str),
        "intent": st.sampled_from(["order", "price", "complaint"]),
    }
)
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(TIMES, st.integers(NOW, NOW + 150 * DAY))), min_size=1, max_size=8
)


def columns(view: Any, events: list[dict[str, Any]], arrival: bool) -> Events:
    """Events as the lake gives them: sorted by entity and time, ties in the order of the log."""
    ordered = sorted(events, key=lambda event: (event["entity"], event["event_time"]))
    time = np.array([event["event_time"] for event in ordered], np.int64)
    came = np.array([event["came"] for event in ordered], np.int64)
    numbers = {f.column for f in view.features if f.function not in ("count", "approx_count_distinct")}
    hashed = {f.column for f in view.features if f.function == "approx_count_distinct"}
    return Events(
        np.array([event["entity"] for event in ordered], np.int64),
        time,
        np.maximum(time, came) if arrival else time,
        {name: np.array([event[name] for event in ordered], np.float64) for name in numbers},
        {
            name: np.array([-1 if e[name] is None else coupon(e[name]) for e in ordered], np.int64)
            for name in hashed
        },
    )


def differences(
    view: Any, events: list[dict[str, Any]], rows: list[tuple[int, int]], arrival: bool
) -> list[Any]:
    """What the windows say otherwise than the oracle."""
    for event in events:
        event["came"] = event["event_time"] + event["delay"]
    entity, time = np.array(rows, np.int64).T
    found = []
    for some, got in Windows(view, columns(view, events, arrival), 10).answer(entity, time):
        for i, (who, now) in enumerate(rows[some]):
            mine = [event for event in events if event["entity"] == who]
            all_wanted = answers(view.name, mine, now, arrival=arrival)
            for feature in view.features:
                missing = got.missing[feature.name][i]
                value = None if missing else got.values[feature.name][i].item()
                status = Status(got.statuses[feature.window_ms][i]).name
                wanted = all_wanted[feature.name]
                if not same(feature.function, value, wanted[0]) or status != wanted[1]:
                    found.append((feature.name, who, now, (value, status), wanted))
    return found


@pytest.mark.parametrize("arrival", [False, True], ids=["event", "arrival"])
@pytest.mark.parametrize("name", PLAN.views)
@settings(deadline=None, max_examples=30)
@given(events=st.lists(EVENT, max_size=40), rows=ROWS)
def test_windows_equal_the_oracle(
    name: str, arrival: bool, events: list[dict[str, Any]], rows: list[tuple[int, int]]
) -> None:
    assert not differences(PLAN.views[name], events, sorted(rows), arrival)


def test_a_planted_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above is able to fail: windows that also hold the rest of their last hop are found out."""
    view = PLAN.views["product_demand"]  # its hop is a day
    event = dict.fromkeys(("entity", "delay", "amount", "quantity", "discount"), 0)
    events = [{**event, "event_time": NOW - NOW % DAY + 20 * HOUR}]
    rows = [(0, NOW - NOW % DAY + 19 * HOUR)]
    assert not differences(view, events, rows, arrival=False)
    honest = Windows.answer
    monkeypatch.setattr(
        Windows, "answer", lambda self, entity, time: honest(self, entity, time - time % DAY + DAY - 1)
    )
    assert {each[0] for each in differences(view, events, rows, arrival=False)} >= {
        "count_7d",
        "amount_sum_90d",
    }


def test_an_import_of_the_past_in_any_order_is_known_when_it_came() -> None:
    """Every event out of order at once: the way that looks at each event alone, in several goes."""
    rng = np.random.default_rng(5)
    event = {"entity": 0, "discount": 0.0, "customer_id": "c", "product_id": "p"}
    events = [
        {
            **event,
            "event_time": int(NOW - 30 * DAY + i * 600_000),
            "amount": float(amount),
            "quantity": int(amount),
        }
        for i, amount in enumerate(rng.integers(1, 99, 3_000))
    ]
    for each, delay in zip(events, rng.permutation(len(events)), strict=True):
        each["delay"] = int(40 * DAY + delay * 1_000)
    rows = sorted((0, int(NOW + 10 * DAY + at)) for at in rng.integers(0, 3_000_000, 6))
    assert not differences(PLAN.views["dealer_orders"], events, rows, arrival=True)
