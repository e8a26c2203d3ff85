"""The online model of leads: what it learns is what the mathematics say, in any cut, and from nobody alone."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.leads import COEFFICIENTS, NAMES, Conversation, Learner, Message, Voices, answer_of, outcome_of
from models.leads.replay import replay
from models.training.metrics import binary
from tests.models.lead_talk import talk


def lessons(count: int, seed: int = 1) -> list[tuple[tuple[float, ...], float, float]]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        vector = tuple(rng.random() for _ in NAMES)
        found.append((vector, float(rng.random() < vector[3]), rng.choice([1.0, 0.5, 0.0])))
    return found


def test_a_step_is_that_of_stochastic_gradient_descent() -> None:
    """The state after 500 labels, worked out in plain arithmetic from the textbook's update."""
    learner = Learner()
    weights, bias = [0.0] * len(NAMES), 0.0
    for vector, outcome, weight in lessons(500):
        learner.learn(vector, outcome, weight)
        if weight == 0:
            continue
        odds = sum(w * x for w, x in zip(weights, vector, strict=True)) + bias
        slope = (1 / (1 + math.exp(-odds)) - outcome) * weight
        weights = [w - 0.05 * (slope * x + 1e-4 * w) for w, x in zip(weights, vector, strict=True)]
        bias -= 0.05 * slope
    assert np.allclose(learner.coefficients(), [*weights, bias], rtol=1e-5, atol=1e-6)
    vector = lessons(1, seed=9)[0][0]
    odds = sum(w * x for w, x in zip(weights, vector, strict=True)) + bias
    assert answer_of(vector, learner.coefficients()) == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 199), max_size=8))
def test_a_state_that_was_written_and_read_goes_on_to_the_bit(cuts: set[int]) -> None:
    whole, parted = Learner(), Learner()
    for at, lesson in enumerate(lessons(200)):
        if at in cuts:
            parted = Learner.load(parted.dump())
        whole.learn(*lesson)
        parted.learn(*lesson)
    assert parted.dump() == whole.dump()
    assert parted.coefficients() == whole.coefficients()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"learnt": 1, "steps": 1, "intercept": NaN, "weights": {}}'])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Learner.load(text)


def test_a_vector_is_bounded_whatever_is_said() -> None:
    known = Conversation()
    for at in range(3_000):
        known.add(Message("customer", 100_000, "place_order", -1.0, 1.0, 1.0, at * 86_400_000))
        vector = known.vector()
        assert len(vector) == len(NAMES) == len(COEFFICIENTS) - 1
        assert all(-1.0 <= each <= 2.0 for each in vector)
    assert vector[NAMES.index("says_place_order")] == vector[NAMES.index("customer_share")] == 1.0


def test_only_an_outcome_of_a_chat_or_insight_says_what_became_of_it() -> None:
    told = {"subject_type": "chat", "kind": "outcome", "value": 2.0}
    assert outcome_of(told) == 1.0
    assert outcome_of(told | {"value": 0.0}) == 0.0
    assert outcome_of(told | {"subject_type": "insight"}) == 1.0
    for other in ({"kind": "rating"}, {"kind": "thumb"}, {"subject_type": "order"}):
        assert outcome_of(told | other) is None


def test_an_answer_knows_nothing_of_what_came_later() -> None:
    messages, outcomes = talk(300)
    whole = list(replay(messages, outcomes))
    half = list(replay(messages[: len(messages) // 2], outcomes[:150]))
    assert [each.answer for each in half] == [each.answer for each in whole[: len(half)]]
    assert len(half) > 100


def test_it_learns_and_learns_anew_when_the_world_turns() -> None:
    messages, outcomes = talk(2_400, turned=1_200)
    found = list(replay(messages, outcomes))
    assert len(found) == 2_400

    def auc(first: int, beyond: int) -> float:
        some = found[first:beyond]
        truth = np.array([each.outcome for each in some])
        return binary(truth, np.array([each.answer for each in some])[:, None])["auc"]

    assert auc(600, 1_200) > 0.7
    assert auc(1_200, 1_260) < 0.4  # it says what was right before
    assert auc(1_800, 2_400) > 0.7


def test_one_source_that_floods_the_stream_moves_the_model_little() -> None:
    """After 400 honest outcomes one source calls 2,400 leads the other way round within days."""
    messages, outcomes = talk(2_800, days=10, turned=400)
    for at, each in enumerate(outcomes):
        if at >= 400:
            each["source"] = "mallory"
    learner = Learner()
    found = list(replay(messages, outcomes, learner=learner))
    free = Learner()
    for each in found:
        free.learn(each.vector, each.outcome)
    fresh = list(replay(*talk(400, seed=8, mark="fresh"), learner=Learner()))
    truth = np.array([each.outcome for each in fresh])

    def auc(of: Learner) -> float:
        given = [answer_of(each.vector, of.coefficients()) for each in fresh]
        return binary(truth, np.array(given)[:, None])["auc"]

    assert auc(learner) > 0.7
    assert auc(free) < 0.35  # without the bound it would have believed all of it
    assert sum(each.weight for each in found[400:]) <= 20


def test_a_source_counts_once_for_a_lead_and_may_change_its_mind_once() -> None:
    voices = Voices()
    first, said = voices.weigh("anna", 1.0, None, 1)
    again, said = voices.weigh("anna", 1.0, said, 2)
    other, said = voices.weigh("anna", 0.0, said, 3)
    back, said = voices.weigh("anna", 1.0, said, 2)
    assert (first, again, other, back) == (1.0, 0.0, 1.0, 0.0)
    assert Voices.load(voices.dump()).dump() == voices.dump()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_sources_that_say_as_much_as_each_other_are_all_believed(count: int) -> None:
    voices = Voices()
    weights = [voices.weigh(f"s{at % count}", 1.0, None, at)[0] for at in range(600)]
    assert sum(weights) / len(weights) > 0.9


def test_who_is_left_alone_is_believed_again_after_a_time() -> None:
    voices, day = Voices(), 86_400_000
    for at in range(60):
        voices.weigh(f"s{at % 3}", 1.0, None, at)
    flood = [voices.weigh("s0", 1.0, None, 100)[0] for _ in range(500)]
    assert sum(flood) < 25
    assert flood[-1] == 0.0
    alone = [voices.weigh("s0", 1.0, None, at * day)[0] for at in range(1, 200)]
    assert alone[:10] != [1.0] * 10
    assert alone[-10:] == [1.0] * 10


def test_contradiction_between_sources_comes_to_rest_in_the_middle() -> None:
    learner, vector = Learner(), (0.5,) * len(NAMES)
    for at in range(600):
        learner.learn(vector, float(at % 2))
    assert answer_of(vector, learner.coefficients()) == pytest.approx(0.5, abs=0.15)


def test_no_training_library_comes_with_it() -> None:
    code = (
        "import sys, models.leads as l, streams.views.lead_learner, streams.views.lead_view; l.Learner(); "
        "print([n for n in ('pandas', 'sklearn', 'torch', 'feast', 'mlflow', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
