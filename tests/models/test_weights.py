"""Weights of feedback: bounded, decayed, the same from every replay, and bent by no single caller."""

import random

import pytest

from models.search.weights import PER_SOURCE, Weights, feedback_id, search_key

DAY_MS = 86_400_000
NOW_MS = 1_500_000_000_000
KEY = search_key([3, 1, 2], None)


def said(
    owner="product/1", dealer="d", source="app", kind="thumb", value=1.0, at_ms=NOW_MS, comment=None, key=KEY
):
    return {
        "event_id": "x", "dealer_id": dealer, "subject_type": "search", "subject_id": feedback_id(key, owner),
        "kind": kind, "value": value, "comment": comment, "source": source, "event_time": at_ms,
    }  # fmt: skip


def folded(*feedback, **settings):
    weights = Weights(**settings)
    for each in feedback:
        weights.fold(each)
    return weights


def weight(evidence, bound=0.3):
    return 1 + bound * evidence / (abs(evidence) + 10)


def test_the_same_words_are_the_same_search():
    assert search_key([1, 2, 3, 3], None) == KEY
    assert search_key([1, 2], None) != KEY
    assert search_key([1, 2, 3], "product/1") != KEY


@pytest.mark.parametrize(
    ("kind", "value", "evidence"),
    [
        ("click", 1.0, 0.25), ("outcome", 1.0, 1.0), ("outcome", 0.0, 0.0), ("thumb", -1.0, -1.0),
        ("thumb", 50.0, 1.0), ("rating", 5.0, 1.0), ("rating", 1.0, -1.0), ("rating", 3.0, 0.0),
    ],
)  # fmt: skip
def test_each_kind_says_what_it_is_worth(kind, value, evidence):
    assert folded(said(kind=kind, value=value)).weight(KEY, "product/1") == pytest.approx(weight(evidence))


def test_a_correction_speaks_against_one_hit_and_for_another():
    weights = folded(said(kind="correction", comment="product/2"))
    assert weights.weight(KEY, "product/1") == pytest.approx(weight(-1))
    assert weights.weight(KEY, "product/2") == pytest.approx(weight(1))
    assert weights.weight(search_key([9], None), "product/1") == 1


def test_evidence_decays_in_event_time_and_a_late_one_counts_as_it_would_have():
    old, new = said(at_ms=NOW_MS - 30 * DAY_MS), said(owner="product/2", dealer="e")
    for order in ((old, new), (new, old)):
        assert folded(*order, half_life_days=30).weight(KEY, "product/1") == pytest.approx(weight(0.5))


def test_one_caller_moves_a_weight_no_further_than_one_voice_however_often_it_speaks():
    for many in (
        [said(at_ms=NOW_MS + i) for i in range(5_000)],
        [said(source=f"app{i}", at_ms=NOW_MS) for i in range(200)],
    ):
        poisoned = folded(*many).weight(KEY, "product/1")
        assert poisoned == pytest.approx(weight(1), rel=1e-6)
        assert poisoned < 62 / 61 * 63 / 62  # two ranks of one list


def test_one_source_that_speaks_for_many_dealers_is_capped_and_many_sources_are_not():
    one = folded(*(said(dealer=f"d{i}", source="bot") for i in range(200)))
    assert one.weight(KEY, "product/1") == pytest.approx(weight(PER_SOURCE))
    many = folded(*(said(dealer=f"d{i}", source=f"app{i}") for i in range(60)))
    assert many.weight(KEY, "product/1") == pytest.approx(weight(60))
    assert (
        folded(*(said(dealer=f"d{i}", source=f"a{i}", value=-1) for i in range(250))).weight(KEY, "product/1")
        > 0.7
    )


def test_a_replay_gives_the_same_weights():
    dice = random.Random(5)
    some = [
        said(
            f"product/{dice.randrange(9)}", f"d{dice.randrange(30)}", f"app{dice.randrange(5)}",
            dice.choice(["click", "thumb", "outcome", "correction"]), dice.choice([-1.0, 1.0]),
            NOW_MS + dice.randrange(90 * DAY_MS), f"product/{dice.randrange(9)}",
            search_key([dice.randrange(4)], None),
        )
        for _ in range(2_000)
    ]  # fmt: skip
    weights = folded(*some)
    first = weights.dump()
    assert len(set(first.values())) > 20
    assert folded(*some).dump() == first
    weights.clear()
    assert weights.dump() == {}
    for each in some:
        weights.fold(each)
    assert weights.dump() == first
    # Dealers' events keep their order within a partition, whatever the partitions' own order is.
    regrouped = sorted(some, key=lambda each: each["dealer_id"])
    assert folded(*regrouped).dump() == pytest.approx(first)


def test_the_holdout_is_a_share_that_stays_and_measures_the_lift():
    weights = Weights(holdout=0.2)
    held = {f"d{i}" for i in range(5_000) if weights.held_out(f"d{i}", KEY)}
    assert 0.18 < len(held) / 5_000 < 0.22
    assert held == {f"d{i}" for i in range(5_000) if Weights(holdout=0.2).held_out(f"d{i}", KEY)}
    assert weights.lift() is None
    for i in range(5_000):
        if f"d{i}" in held or i % 2:  # those held out are pleased twice as often
            weights.fold(said(dealer=f"d{i}"))
    lift, low, high = weights.lift()
    assert low < lift < high < -0.4
    assert not any(Weights(holdout=0.0).held_out(f"d{i}", KEY) for i in range(100))


def test_what_is_about_no_hit_of_a_search_says_nothing():
    weights = Weights()
    for strange in (
        said() | {"subject_type": "chat"}, said() | {"subject_id": "product/1"}, said() | {"subject_id": KEY},
        said() | {"subject_id": f"{KEY}/product"}, said(value=0.0),
    ):  # fmt: skip
        assert not weights.fold(strange)
    assert len(weights) == 0
