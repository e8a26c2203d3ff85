"""Leads in the stream on a real Valkey: scored, labelled, learnt from; through crashes, with bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lead_world import CrashError, Log, World, lead_model

from models.artifact import ArtifactError
from models.inputs import EventField
from models.leads import COEFFICIENTS, NAMES, Conversation, Learner, Message, answer_of
from models.runtime import Session
from schemas.validate import problems
from streams.insights.explain import explain
from streams.leads.scorer import LeadScorer
from streams.verify.leads import learnt_from
from tests.models.lead_talk import START, talk


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lead_model(tmp_path_factory.mktemp("models"))[0]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["chats.enriched", "feedback", "leads.labelled"]),
        st.integers(1, 30),
        st.sampled_from(["", "", "", "restart", "crash after produce"]),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_what_was_learnt_is_the_log_folded_into_an_empty_store(store: Any, served: Path, steps: Any) -> None:
    """In whatever order topics come, wherever it crashes: byte for byte what one pass over the log gives."""
    store.flushall()
    messages, outcomes = talk(40)
    log = Log()
    log.send("chats.enriched", messages)
    log.send("feedback", outcomes)
    world = World(store, log, "one", served)
    for name, most, what in steps:
        log.crash = what == "crash after produce" and name != "leads.labelled"
        try:
            world.fold(name, most)
        except CrashError:
            world.restart()
        log.crash = False
        if what == "restart":
            world.restart()
    world.rest()
    again = World(store, log, "two")
    again.fold("leads.labelled")
    assert again.learnt() == world.learnt()
    lessons = {each["event_id"]: each for each in log.records("leads.labelled")}
    assert {each["cause_id"] for each in lessons.values()} == {each["event_id"] for each in outcomes}
    scored = {each["cause_id"] for each in log.records("scores")}
    assert scored == {each["event_id"] for each in messages}
    # The vectors are those of the conversation up to the message, worked out from the messages alone.
    for lesson in lessons.values():
        own = [each for each in messages if each["conversation_id"] == lesson["conversation_id"]]
        known = Conversation()
        for each in own[: 1 + [each["cause_id"] for each in own].index(lesson["message_id"])]:
            known.add(Message.of(each))
        assert tuple(lesson["features"][name] for name in NAMES) == known.vector()
        assert not problems("leads.labelled", lesson)


def test_what_was_learnt_is_worked_out_again_from_the_log(store: Any, served: Path) -> None:
    """By verify's own arithmetic; one source floods, some say it twice, and some change their minds."""
    store.flushall()
    messages, outcomes = talk(300, seed=9)
    for at, each in enumerate(outcomes[100:220]):
        each["source"] = "mallory" if at % 3 else each["source"]
    more = [each | {"event_id": f"again{at}"} for at, each in enumerate(outcomes[::5])]
    more += [each | {"event_id": f"no{at}", "value": -each["value"]} for at, each in enumerate(outcomes[::7])]
    more += [each | {"event_id": f"yes{at}"} for at, each in enumerate(outcomes[::7])]
    log = Log()
    world = World(store, log, "one", served)
    log.send("chats.enriched", messages)
    log.send("feedback", [*outcomes, *more])
    world.rest()
    expected = learnt_from(log.records("leads.labelled"))
    learner = world.learner._store.load()[0]
    assert learner.learnt == expected.pop("outcomes") == len(outcomes) + len(more)
    assert learner.coefficients() == pytest.approx(
        [*(expected[name] for name in NAMES), expected["intercept"]], abs=1e-6
    )


def test_a_score_has_the_newest_coefficients_and_comes_again_to_the_bit(store: Any, served: Path) -> None:
    store.flushall()
    messages, outcomes = talk(60)
    log, session = Log(), Session(served)
    world = World(store, log, "one", served)
    expected = Learner()
    for at in range(60):
        own = [each for each in messages if each["conversation_id"] == f"t-c{at}"]
        log.send("chats.enriched", own)
        log.send("feedback", [each for each in outcomes if each["event_id"] == f"t-f{at}"])
        before = len(log.records("scores"))
        world.rest()
        fresh = log.records("scores")[before:]
        assert len(fresh) == len(own)
        for score in fresh:
            held = tuple(score["features"][name] for name in COEFFICIENTS)
            assert held == expected.coefficients()
            found = explain(session, score)
            assert found.same
            assert score["score"] == np.float32(answer_of([score["features"][name] for name in NAMES], held))
            assert not any(each["by"] for each in found.inputs if each["input"] in COEFFICIENTS)
            assert not problems("scores", score)
        lesson = log.records("leads.labelled")[-1]
        expected.learn([lesson["features"][name] for name in NAMES], lesson["outcome"])
    assert expected.coefficients() != Learner().coefficients()


def test_a_hot_lead_is_told_with_reasons_that_are_no_coefficients(store: Any, served: Path) -> None:
    store.flushall()
    messages, outcomes = talk(400, seed=3)
    log = Log()
    world = World(store, log, "one", served)
    for name, records in (("chats.enriched", messages), ("feedback", outcomes)):
        log.send(name, records)
    world.rest()
    before = len(log.records("scores"))
    wants = messages[0] | {"intent": "place_order", "conversation_id": "hot", "dealer_id": "t-D1"}
    log.send("chats.enriched", [wants | {"event_id": f"hot{i}", "cause_id": f"hot-m{i}"} for i in range(3)])
    world.rest()
    readings = [each["readings"][0] for each in log.records("scores")[before:]]
    assert {each["rule"] for each in readings} == {"hot_lead"}
    hot = readings[-1]
    assert hot["value"] > hot["threshold"]
    assert "Conversation hot may well become an order" in hot["text"]
    assert hot["reasons"]
    assert not {each["input"] for each in hot["reasons"]} & set(COEFFICIENTS)
    # The dealer answers to the insight: it is learnt of the message that made it, and of no other insight.
    answer = outcomes[0] | {"dealer_id": "t-D1", "subject_type": "insight", "value": -1.0}
    log.send(
        "feedback",
        [
            answer | {"event_id": "a1", "subject_id": hot["insight_id"]},
            answer | {"event_id": "a2", "subject_id": "an insight of another rule"},
        ],
    )
    known = len(log.records("leads.labelled"))
    world.restart()
    world.rest()
    (lesson,) = log.records("leads.labelled")[known:]
    assert (lesson["message_id"], lesson["outcome"], lesson["cause_id"]) == ("hot-m2", 0.0, "a1")


def test_bad_input_costs_nothing_but_itself(store: Any, served: Path) -> None:
    store.flushall()
    messages, outcomes = talk(3)
    log = Log()
    world = World(store, log, "one", served)
    future = messages[0] | {"event_id": "f", "cause_id": "fm", "event_time": 9_000_000_000_000}
    log.send("chats.enriched", [b"junk", None, *messages, messages[0], future])
    wrong = outcomes[0] | {"event_id": "w", "dealer_id": "somebody else"}
    rated = outcomes[0] | {"event_id": "r", "kind": "rating"}
    unknown = outcomes[0] | {"event_id": "u", "subject_id": "never comes"}
    log.send("feedback", [b"junk", None, wrong, rated, unknown, *outcomes])
    log.send("leads.labelled", [b"junk"])
    refused: list[Any] = []
    world.learner.letters = refused.extend
    world.rest()
    assert len(log.records("scores")) == len(messages)
    lessons = [each for each in log.topics["leads.labelled"] if each.value() != b"junk"]
    assert len(lessons) == len(outcomes)
    assert len(refused) == 1
    assert world.learner._store.load()[0].learnt == len(outcomes)


def test_without_a_champion_it_learns_and_scores_nothing(store: Any) -> None:
    store.flushall()
    messages, outcomes = talk(30)
    log = Log()
    world = World(store, log, "one")
    log.send("chats.enriched", messages)
    log.send("feedback", outcomes)
    world.rest()
    assert log.records("scores") == []
    assert len(log.records("leads.labelled")) == 30
    assert messages[0]["event_time"] >= START


def test_a_model_of_other_numbers_is_refused(tmp_path: Path) -> None:
    from features.plan import load

    inputs = (EventField("amount", "amount"), *lead_model(tmp_path)[1].inputs[1:])
    folder, _ = lead_model(tmp_path, "other", inputs=inputs)
    with pytest.raises(ArtifactError, match="reads @amount, which a lead has not"):
        LeadScorer(Session(folder), load())
