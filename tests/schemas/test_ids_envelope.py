from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.envelope import headers, new_traceparent, parse_headers
from schemas.ids import derived_id, event_id

_PART = st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


def test_ids_are_the_same_for_ever():
    assert event_id("orders", "31198570044", 0) == "264d5a55df8911641a6ca3d44214302c"


@given(st.lists(_PART, min_size=1, max_size=5), st.lists(_PART, min_size=1, max_size=5))
def test_different_keys_have_different_ids(one, other):
    assume(one != other)
    assert event_id(*one) != event_id(*other)


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=2), st.data())
def test_moving_text_between_parts_changes_the_id(text, data):
    cut = data.draw(st.integers(1, len(text)))
    assert event_id(text[:cut], text[cut:]) != event_id(text[: cut - 1], text[cut - 1 :])


def test_other_types_are_refused():
    for bad in (1.5, True, b"x"):
        with pytest.raises(TypeError):
            event_id(bad)
    with pytest.raises(ValueError, match="at least one"):
        event_id()


def test_derived_ids_change_with_each_part():
    base = ("m@1", "d", 60_000, "c")
    others = [
        ("m@2", "d", 60_000, "c"),
        ("m@1", "e", 60_000, "c"),
        ("m@1", "d", 0, "c"),
        ("m@1", "d", 60_000, "x"),
    ]
    assert len({derived_id(*each) for each in [base, *others]}) == 5


@given(_PART.filter(bool), st.integers(-62_000_000_000_000, 253_000_000_000_000))
def test_the_envelope_comes_back(text, time_ms):
    found = parse_headers(headers(text, "orders", "test", time_ms, text))
    assert (found.event_id, found.type, found.source, found.time_ms, found.subject) == (
        text, "orders", "test", time_ms, text
    )  # fmt: skip
    assert found.traceparent
    assert found.unreadable == ()


@given(st.lists(st.tuples(st.sampled_from(["ce_id", "ce_time", "traceparent", "x"]), st.binary() | st.none())))
def test_foreign_headers_never_raise(raw):
    parse_headers(raw)


def test_a_child_span_stays_in_its_trace():
    parent = new_traceparent()
    child = new_traceparent(parent)
    assert child[:36] == parent[:36]
    assert child != parent
