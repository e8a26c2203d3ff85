"""A change of the definitions: what it does to stored tiles, and what `features plan` says of it."""

from dataclasses import replace

import pytest
import redis

from dealeriq.settings import Settings
from features.changes import Backfill, compare
from features.keys import entity_key, field, unwrap_bytes
from features.merge import Status, merge
from features.plan import ColumnPlan, FeaturePlan, Plan, ViewPlan, load
from features.tiles import CorruptBlobError, align, decode, encode
from features.writer import FeatureWriter
from tests.features.folding import answers, tiles_of

PLAN = load()
OLD = PLAN.views["dealer_category_orders"]
NOW = 1_700_000_000_000
DAY = 86_400_000
ADDED = (
    FeaturePlan("amount_min_7d", "amount", "min", 7 * DAY, "double"),
    FeaturePlan("amount_last_7d", "amount", "last", 7 * DAY, "double"),
    FeaturePlan("amount_std_24h", "amount", "std", DAY, "double"),
    FeaturePlan("product_id_distinct_30d", "product_id", "approx_count_distinct", 30 * DAY, "long"),
)
# The new partials stand before, between and after the old ones.
NEW = replace(
    OLD,
    features=(*ADDED[:2], *OLD.features, *ADDED[2:]),
    columns=(
        ColumnPlan("product_id", ("distinct",)),
        *reversed([each for each in OLD.columns if each.column != "amount"]),
        ColumnPlan("amount", ("sum", "sumsq", "min", "max", "last")),
    ),
)
EVENTS = [
    {"event_time": NOW - i * 7_000_000, "amount": float(i), "quantity": i % 5, "product_id": str(i % 9)}
    for i in range(200)
]


def changed(view: ViewPlan) -> Plan:
    return replace(PLAN, views={**PLAN.views, view.name: view})


def test_old_tiles_answer_what_they_can_and_say_what_they_cannot() -> None:
    row = merge(NEW, encode(tiles_of(OLD, EVENTS), OLD), NOW)
    wanted = dict(zip([each.name for each in OLD.features], answers(OLD, EVENTS, NOW), strict=True))
    for feature, value, status in zip(NEW.features, row.values, row.statuses, strict=True):
        if feature in ADDED:
            assert (value, status) == (None, Status.UNKNOWN), feature.name
        else:
            assert (value, status) == (pytest.approx(wanted[feature.name]), Status.PRESENT), feature.name


def test_old_tiles_are_kept_under_new_ones_and_a_backfill_mends_them(stack: Settings) -> None:
    client = redis.Redis.from_url(stack.redis.address)
    entity = ("migrated", "GROCERY")
    key = entity_key(OLD, dict(zip(OLD.entity, entity, strict=True)), PLAN.project)

    def row() -> dict[str, float | int | None]:
        stored = unwrap_bytes(client.hget(key, field(NEW.name, "tiles")))
        return dict(zip([each.name for each in NEW.features], merge(NEW, stored, NOW).values, strict=True))

    FeatureWriter(client, OLD, PLAN.project).write({entity: tiles_of(OLD, EVENTS)}, {})
    new = FeatureWriter(client, NEW, PLAN.project)
    new.write({entity: [tile for tile in tiles_of(NEW, EVENTS) if tile.hop_ms >= NOW - DAY]}, {})
    after = row()
    assert after["count_90d"] == len(EVENTS)
    assert after["amount_std_24h"] is not None
    assert after["amount_min_7d"] is None
    assert after["product_id_distinct_30d"] is None
    new.write({entity: tiles_of(NEW, EVENTS)}, {})
    assert list(row().values()) == pytest.approx(answers(NEW, EVENTS, NOW))


def test_a_removed_aggregate_leaves_the_others() -> None:
    row = merge(OLD, encode(tiles_of(NEW, EVENTS), NEW), NOW)
    assert list(row.values) == pytest.approx(answers(OLD, EVENTS, NOW))


def test_a_blob_without_names_must_fit() -> None:
    with pytest.raises(CorruptBlobError, match="without names"):
        align(NEW, decode(encode(tiles_of(OLD, EVENTS))))


def test_nothing_changed() -> None:
    assert compare(PLAN, PLAN) == []


def test_a_new_aggregate_needs_the_events() -> None:
    (change,) = compare(PLAN, changed(NEW))
    assert change.added_features == tuple(each.name for each in ADDED)
    assert change.added_fields == (
        "amount_sumsq", "amount_min", "amount_last", "amount_last_time", "product_id_distinct",
    )  # fmt: skip
    assert (change.backfill, change.removed_fields) == (Backfill.EVENTS, ())
    (back,) = compare(changed(NEW), PLAN)
    assert set(back.removed_fields) == set(change.added_fields)
    assert back.backfill is Backfill.NONE


def test_a_window_within_what_is_kept_needs_nothing_and_a_longer_one_the_tiles() -> None:
    within = FeaturePlan("amount_sum_14d", "amount", "sum", 14 * DAY, "double")
    (change,) = compare(PLAN, changed(replace(OLD, features=(*OLD.features, within))))
    assert (change.added_features, change.backfill) == (("amount_sum_14d",), Backfill.NONE)
    longer = replace(OLD, retention_ms=(*OLD.retention_ms[:-1], OLD.retention_ms[-1] + 90 * DAY))
    (change,) = compare(PLAN, changed(longer))
    assert change.backfill is Backfill.TILES


def test_a_view_that_is_new_or_folded_otherwise_needs_the_events() -> None:
    assert {each.backfill for each in compare(None, PLAN)} == {Backfill.EVENTS}
    (change,) = compare(PLAN, changed(replace(OLD, source_topic="feedback")))
    assert change.backfill is Backfill.EVENTS
    assert "source_topic" in change.reason
    fewer = replace(PLAN, views={name: each for name, each in PLAN.views.items() if name != OLD.name})
    (change,) = compare(PLAN, fewer)
    assert (change.kind, len(change.removed_features)) == ("removed", len(OLD.features))
