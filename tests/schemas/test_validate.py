from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.validate import problems


def test_a_good_order_has_no_problem(order):
    assert problems("orders", order) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantity": -3}, "quantity -3 is below 0"),
        ({"quantity": 1_000_001}, "quantity 1000001 is above 1000000"),
        ({"quantity": True}, "quantity is True"),
        ({"amount": float("nan")}, "not a finite number"),
        ({"amount": float("inf")}, "not a finite number"),
        ({"amount": -0.01}, "below 0"),
        ({"event_time": 0}, r"\(1970-01-01\)"),
        ({"event_time": 7_258_118_400_000}, r"\(2200-01-01\)"),
        ({"event_time": 946_684_800_000}, "not after 2000"),
        ({"event_time": 4_102_444_800_000}, "before 2100"),
        ({"dealer_id": ""}, "0 characters"),
        ({"dealer_id": None}, "dealer_id is null"),
        ({"dealer_id": "\ud800"}, "surrogate"),
        ({"currency": "USD\n"}, "must match"),
        ({"brand": "x" * 201}, "201 characters"),
        ({"colour": "red"}, "colour is not a field"),
    ],
)
def test_each_problem_is_one_sentence_that_names_the_field(order, change, words):
    found = problems("orders", order | change)
    assert len(found) == 1
    assert re.search(words, found[0]), found[0]


@given(st.integers())
def test_quantity_is_good_exactly_within_its_bounds(value):
    record = {
        "event_id": "e",
        "dealer_id": "d",
        "product_id": "p",
        "on_hand": value,
        "event_time": 1_500_000_000_000,
    }
    assert (problems("inventory", record) == []) == (0 <= value <= 1_000_000_000)


@given(
    st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    )
)
def test_any_record_is_judged_without_an_error(record):
    assert problems("feedback", record)
