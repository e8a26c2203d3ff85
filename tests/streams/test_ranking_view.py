"""The ranking view: a replay gives the same weights; neither what was reset nor the future counts."""

import pytest

from models.search.weights import Weights, feedback_id, search_key
from schemas.catalogue import topic
from schemas.codec import Encoder
from streams.views.ranking_view import RankingView

NOW_MS = 1_500_000_000_000
KEY = search_key([1, 2], None)
ENCODE = Encoder("feedback", 1).encode


class Message:
    def __init__(self, offset, value):
        self._offset, self._value = offset, value

    def topic(self):
        return "feedback"

    def partition(self):
        return 0

    def offset(self):
        return self._offset

    def value(self):
        return self._value

    def timestamp(self):
        return 1, NOW_MS


def said(number, at_ms=NOW_MS, owner="product/1", **more):
    return ENCODE(
        {
            "event_id": f"f{number}", "dealer_id": f"d{number}", "subject_type": "search",
            "subject_id": feedback_id(KEY, owner), "kind": "thumb", "value": 1.0, "comment": None,
            "source": f"app{number}", "event_time": at_ms,
        } | more
    )  # fmt: skip


def viewed(values, since=lambda: 0):
    weights = Weights()
    view = RankingView(weights, lambda number: topic("feedback").schema, since)
    assert view.positions() == {}
    view.apply([Message(i, each) for i, each in enumerate(values)])
    return view, weights


def test_a_replay_gives_the_same_weights_and_starting_again_counts_nothing_twice():
    values = [said(i, NOW_MS + i, f"product/{i % 3}", value=1.0 - 2 * (i % 2)) for i in range(60)]
    view, weights = viewed([*values, b"no record", None, said(99, subject_type="chat", subject_id="c")])
    first = weights.dump()
    assert len(first) == 3
    assert viewed(values)[1].dump() == first
    assert view.positions() == {}
    assert weights.dump() == {}
    for start in range(0, 60, 7):
        view.apply([Message(start + i, each) for i, each in enumerate(values[start : start + 7])])
    assert weights.dump() == first


def test_what_was_said_before_a_reset_counts_no_longer_then_and_in_every_replay():
    moment = [0]
    view, weights = viewed([said(i) for i in range(10)], lambda: moment[0])
    assert weights.weight(KEY, "product/1") > 1
    moment[0] = NOW_MS + 1
    view.tick()
    assert weights.weight(KEY, "product/1") == 1
    later = [said(i, NOW_MS + 2) for i in range(20, 25)]
    view.apply([Message(10 + i, each) for i, each in enumerate(later)])
    again = viewed([*(said(i) for i in range(10)), *later], lambda: moment[0])[1]
    assert weights.dump() == again.dump()
    assert weights.weight(KEY, "product/1") == pytest.approx(1 + 0.3 * 5 / 15)


def test_an_event_that_is_dated_far_after_it_was_produced_does_not_count():
    _, weights = viewed([said(1, NOW_MS + 2 * 86_400_000), said(2, NOW_MS + 3_600_000)])
    assert weights.now_ms == NOW_MS + 3_600_000
