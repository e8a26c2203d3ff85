"""However events are split into tiles, updates and batches, the same values come out."""

import uuid
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dealeriq.settings import Settings
from features.keys import entity_key, field, unwrap_bytes
from features.merge import merge
from features.plan import load
from features.sketch import coupon, estimate
from features.tiles import encode
from features.writer import FeatureWriter
from tests.features.folding import answers, tiles_of

PLAN = load()
NOW = 1_700_000_000_000
DAY = 86_400_000
EVENT = st.fixed_dictionaries(
    {
        # Near the present and anywhere in the last hundred days, so that every grain is at some window's edge.
        "event_time": st.one_of(st.integers(NOW - 2 * 3_600_000, NOW), st.integers(NOW - 100 * DAY, NOW)),
        "amount": st.integers(0, 1000),
        "quantity": st.integers(0, 9),
        "discount": st.integers(0, 50),
        "customer_id": st.one_of(st.none(), st.integers(0, 30).map(str)),
        "product_id": st.integers(0, 200).map(str),
        "sentiment": st.integers(-100, 100).map(lambda x: x / 128),
        "urgency": st.integers(0, 100).map(lambda x: x / 128),
        "value": st.integers(-5, 5),
        "conversation_id": st.integers(0, 9).map(str),
        "intent": st.sampled_from(["order", "price", "complaint"]),
    }
)
EVENTS = st.lists(EVENT, max_size=40, unique_by=lambda event: event["event_time"])


def assert_answers(view: Any, got: Any, events: list[dict[str, Any]], now_ms: int = NOW) -> None:
    for feature, value, want in zip(view.features, got, answers(view, events, now_ms), strict=True):
        assert value == (None if want is None else pytest.approx(want, abs=1e-4)), feature.name


@pytest.mark.parametrize("name", PLAN.views)
@settings(deadline=None, max_examples=60)
@given(events=EVENTS, later=st.integers(0, 40 * DAY))
def test_windows_at_any_moment_equal_the_events(name: str, events: list[dict[str, Any]], later: int) -> None:
    view = PLAN.views[name]
    row = merge(view, encode(tiles_of(view, events), view), NOW + later)
    assert_answers(view, row.values, events, NOW + later)


@pytest.mark.parametrize("name", PLAN.views)
@settings(deadline=None, max_examples=60)
@given(events=EVENTS.filter(bool), behind=st.integers(0, 40), later=st.integers(0, 40 * DAY))
def test_a_coarse_tile_that_is_missing_or_behind_its_parts_changes_nothing(
    name: str, events: list[dict[str, Any]], behind: int, later: int
) -> None:
    view = PLAN.views[name]
    newest = max(event["event_time"] for event in events)
    old = {(tile.grain_s, tile.hop_ms): tile for tile in tiles_of(view, events[:behind])}
    tiles = []
    for tile in tiles_of(view, events):
        grain = tile.grain_s * 1000
        if grain > view.grains_ms[0] and tile.hop_ms <= newest < tile.hop_ms + grain:
            tile = old.get((tile.grain_s, tile.hop_ms))
        tiles += [tile] if tile else []
    assert_answers(view, merge(view, encode(tiles, view), newest + later).values, events, newest + later)


@given(st.lists(st.lists(st.integers(0, 5000).map(str), max_size=50), max_size=8))
@settings(deadline=None)
def test_sketches_unite_over_any_split(groups: list[list[str]]) -> None:
    parts = [np.array(sorted({coupon(each) for each in group}), np.uint32) for group in groups]
    together = np.sort(np.concatenate([np.array([], np.uint32), *parts]))
    whole = np.array(sorted({coupon(each) for group in groups for each in group}), np.uint32)
    assert estimate(together) == estimate(whole)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS.filter(bool), data=st.data())
def test_updates_in_any_order_and_split_store_the_same(
    stack: Settings, events: list[dict[str, Any]], data: st.DataObject
) -> None:
    view = PLAN.views["dealer_orders"]
    entity = (f"split-{uuid.uuid4()}",)
    # Each event makes its tiles newer: all versions that the job may send, shuffled, repeated, cut anywhere.
    sent = [tile for i in range(len(events)) for tile in tiles_of(view, events[: i + 1])]
    sent = data.draw(st.permutations(sent)) + sent[:: len(events)]
    client = redis.Redis.from_url(stack.redis.address)
    writers = [FeatureWriter(client, view, PLAN.project) for _ in range(2)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    for i, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(sent)], strict=True)):
        writers[i % 2].write({entity: sent[start:end]}, {})
    key = entity_key(view, {"dealer_id": entity[0]}, PLAN.project)
    stored = client.hget(key, field(view.name, "tiles"))
    latest = max(event["event_time"] for event in events)
    assert_answers(view, merge(view, unwrap_bytes(stored), latest).values, events, latest)
