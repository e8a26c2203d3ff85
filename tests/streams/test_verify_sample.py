"""The sample of a verify: whom the lot draws, and which entities the store is found to hold."""

from __future__ import annotations

import uuid
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.keys import entity_key
from features.plan import Plan, load
from streams.verify.lot import Lot, lot_column
from streams.verify.online import scan_entities

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load(project=f"p{uuid.uuid4().hex[:8]}")


def _there(plan: Plan, dealers: int) -> dict[str, set[tuple[str, ...]]]:
    """Of every view that many entities; those of more than one name differ in the first."""
    return {
        view.name: {tuple(f"{number}" for _ in view.entity) for number in range(dealers)}
        for view in plan.views.values()
    }


@given(st.lists(TEXTS, min_size=1, max_size=30), st.integers(1, 60))
def test_a_value_is_drawn_or_not_wherever_it_is_met(values: list[str], sample: int) -> None:
    plan = load()
    lot = Lot(plan, _there(plan, 50), sample)
    view = plan.views["dealer_orders"]
    column = lot_column(view)
    rows = lot.rows(pl.DataFrame({column: [*values, None]}), [column])
    assert not rows[-1] or sample >= 50  # a null is nobody
    chosen = lot.chosen(view, [(each,) for each in values])
    assert chosen == sorted({(each,) for each, drawn in zip(values, rows, strict=False) if drawn})
    assert [bool(lot.drawn(column, pl.Series([each]))[0]) for each in values] == rows[:-1].tolist()


def test_about_as_many_are_drawn_as_were_asked_for_and_others_each_time(plan: Plan) -> None:
    view = plan.views["dealer_orders"]
    there = _there(plan, 4_000)
    draws = [set(Lot(plan, there, 1_000).chosen(view, there[view.name])) for _ in range(2)]
    assert all(850 < len(draw) < 1_150 for draw in draws)  # five standard deviations
    assert draws[0] != draws[1]
    assert len(Lot(plan, there, 5_000).chosen(view, there[view.name])) == 4_000


@pytest.mark.services
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, TEXTS), max_size=20), st.lists(st.binary(min_size=1, max_size=60), max_size=20)
)
def test_the_store_is_found_to_hold_the_entities_that_have_a_key(
    store: Any, pairs: list[tuple[str, str]], others: list[bytes]
) -> None:
    plan = load(project=f"p{uuid.uuid4().hex[:8]}")
    view = plan.views["dealer_category_orders"]
    keys = [entity_key(view, dict(zip(view.entity, pair, strict=True)), plan.project) for pair in pairs]
    project = plan.project.encode()
    near = [part for key in keys for part in (key[:-1], key + b"x", key[:9] + project)]
    written = [*keys, *near, *others, *(each + project for each in others)]
    for key in written:
        store.hset(key, "f", 1)
    try:
        assert scan_entities(store, plan)[view.name] == set(pairs)
        assert scan_entities(store, plan)["dealer_orders"] == set()
    finally:
        store.delete(b"none", *written)
