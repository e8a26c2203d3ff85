"""Scores from changed tiles on a real Valkey: once a bucket, through crashes and bad input."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from score_world import HOUR, NOON, PLAN, TILES, CrashError, World
from scoring_model import INPUTS, RULE, folder

from connectors.kafka import KafkaUnavailableError
from features.merge import merge
from models.artifact import ArtifactError, Description
from models.lifecycle import Lifecycle, decision
from models.rules import InsightRule
from models.runtime import Session
from schemas.validate import problems
from streams.scoring.reasons import contributions
from streams.scoring.scorer import Scorer, subjects_of
from streams.scoring.served import ServedModels
from streams.scoring.sweep import entities_of
from streams.views.score_view import FeaturesBehindError
from tests.lake_tables import FakeMessage

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["FUEL", "GROCERY"]),
        st.integers(0, 5 * 12),  # twelfths of an hour: several events share an hour, and come out of order
        st.sampled_from(["", "", "", "score", "score", "kafka away", "crash after produce", "restart"]),
    ),
    min_size=1,
    max_size=25,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Description]:
    return folder(tmp_path_factory.mktemp("models"), "busy")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_each_bucket_is_scored_once_whatever_happens(store: Any, served: Any, steps: list[Any]) -> None:
    world = World(store, *served)
    newest: dict[tuple[str, str], int] = {}
    due: set[tuple[str, int]] = set()
    for dealer, category, twelfth, what in steps:
        at = NOON + twelfth * HOUR // 12
        world.order(dealer, category, 10.0, at)
        world.fold()
        newest[dealer, category] = max(newest.get((dealer, category), 0), at)
        if not what:
            continue
        if what == "restart":
            world.restart()
            continue
        world.topic.away, world.topic.crash = what == "kafka away", what == "crash after produce"
        before = len(world.topic.records)
        try:
            world.score()
        except KafkaUnavailableError:
            world.score()
        except CrashError:
            world.restart()
            world.score()
        world.topic.away = world.topic.crash = False
        # Whoever was scored was scored as of its newest event.
        for record in world.topic.records[before:]:
            entity = record["entity"]["dealer_id"], record["entity"]["category"]
            assert record["event_time"] == newest[entity]
            due.add((record["subject_id"], record["event_time"] // HOUR))
        # Nobody is left with a bucket newer than the one that was scored.
        for (a, b), time_ms in newest.items():
            mine = [r["event_time"] // HOUR for r in world.topic.records if r["subject_id"] == f"{a}/{b}"]
            assert max(mine) == time_ms // HOUR
    ids: dict[str, tuple[str, int]] = {}
    for record in world.topic.records:
        place = record["subject_id"], record["event_time"] // HOUR
        assert ids.setdefault(record["event_id"], place) == place
        assert not problems("scores", record)
    assert len(ids) == len(set(ids.values())), "a bucket got two scores that are not the same event"
    assert set(ids.values()) == due


def test_features_are_those_of_the_store_at_the_newest_event(store: Any, served: Any) -> None:
    world = World(store, *served)
    for day in range(40):
        world.order("a", "FUEL", 10.0 + day, NOON + day * 24 * HOUR)
        world.fold()
    world.score()
    (record,) = world.topic.records
    assert record["cause_id"] == "t0"  # the first change that was not scored yet
    assert record["event_time"] == NOON + 39 * 24 * HOUR
    row = world.row("a", "FUEL", record["event_time"])
    names = [each.name for each in TILES.features]
    wanted = merge(TILES, None, 0)
    assert len(wanted.values) == len(names)
    assert record["features"]["week"] == row.values[names.index("amount_sum_7d")]
    assert record["features"]["week"] == sum(10.0 + day for day in range(33, 40))
    assert record["features"]["dealer_month"] is None  # nothing is known of the dealer as a whole
    assert record["features"]["kind"] == 0.0


def test_nothing_is_scored_before_the_store_holds_its_cause(store: Any, served: Any) -> None:
    world = World(store, *served)
    world.order("a", "FUEL", 10.0, NOON)
    with pytest.raises(FeaturesBehindError, match="the feature view is at 0"):
        world.score()
    assert world.topic.records == []
    world.fold()
    world.score()
    assert len(world.topic.records) == 1


def test_bad_events_and_unseen_categories_hurt_nobody(store: Any, served: Any) -> None:
    world, now = World(store, *served), NOON + 99 * 24 * HOUR
    world.order("a", "FUEL", 10.0, NOON + 500 * 24 * HOUR)  # after the clock: the present is scored on
    world.fold()
    world.log.append(FakeMessage(TILES.topic, 0, len(world.log), b"poison"))
    world.log.append(FakeMessage(TILES.topic, 0, len(world.log), None))
    world.order("a", "FUEL", 10.0, now)
    world.fold()
    world.order("b", "NEVER SEEN", 10.0, now)
    world.fold()
    world.score()
    by_subject = {record["subject_id"]: record for record in world.topic.records}
    assert set(by_subject) == {"a/FUEL", "b/NEVER SEEN"}
    assert by_subject["a/FUEL"]["event_time"] == now
    assert by_subject["b/NEVER SEEN"]["features"]["kind"] is None
    assert all(np.isfinite(record["score"]) for record in world.topic.records)
    world.log.append(FakeMessage(TILES.topic, 0, len(world.log), b"poison"))
    world.score()  # nothing but what cannot be read
    assert len(world.topic.records) == 2


def test_reasons_are_the_models_own_answers_with_one_input_usual(served: Any) -> None:
    where, told = served
    session = Session(where)
    rng = np.random.default_rng(3)
    vectors = rng.gamma(2.0, 60.0, (40, len(INPUTS))).astype(np.float32)
    vectors[rng.random(vectors.shape) < 0.1] = np.nan
    answers = session.run(vectors)
    moved = contributions(session, vectors, answers)
    for row in range(len(vectors)):
        for at in range(len(INPUTS)):
            changed = vectors[row : row + 1].copy()
            changed[0, at] = told.reference[at]
            wanted = answers[row].astype(np.float64) - session.run(changed)[0].astype(np.float64)
            assert np.array_equal(moved[row, at], wanted)
    assert Counter(np.abs(moved[:, :, 1]).argmax(1).tolist()).most_common(1)[0][0] == 0  # the week decides


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"entity": ("product_id",)}, "no dealer"),
        ({"rules": (InsightRule("r", "none", 1.0, "info", "x"),)}, "names none"),
        ({"rules": (InsightRule("r", "high", 1.0, "info", "{score:q}"),)}, "cannot be written"),
        ({"entity": ("dealer_id", "product_id")}, "nothing tells of a change"),
    ],
)
def test_a_model_that_cannot_run_in_the_stream_is_refused(tmp_path: Path, more: Any, words: str) -> None:
    where, _ = folder(tmp_path, "odd", **more)
    with pytest.raises(ArtifactError, match=words):
        Scorer(Session(where), PLAN)


def test_a_bad_version_leaves_the_last_champion(store: Any, tmp_path: Path) -> None:
    first = folder(tmp_path, "busy", seed=1)
    second = folder(tmp_path, "busy", seed=2)
    models, registry, at = ServedModels(PLAN), Lifecycle(), 0

    def step(version: str, stage: str, **more: Any) -> None:
        nonlocal at
        record = decision(
            registry.state("busy"), version, stage, "x", cause=f"c{at}", event_time=NOON, reason="gates", **more
        )
        assert not registry.apply(record, at).void
        at += 1

    for where, told in (first, second):
        step(told.version, "registered", artifact=str(where), sha256=told.sha256)
    step(first[1].version, "champion")
    assert models.refresh(registry)
    began = models.current()
    assert not models.refresh(registry)
    (second[0] / "model.onnx").write_bytes((second[0] / "model.onnx").read_bytes()[:5_000])  # cut short
    step(second[1].version, "champion")
    models.refresh(registry)
    assert models.current()["busy"].champion.version == first[1].version
    assert began["busy"].champion.version == first[1].version
    step("gone", "registered", artifact=str(tmp_path / "gone"))
    step("gone", "challenger")
    models.refresh(registry)
    assert models.current()["busy"].challenger is None
    third = folder(tmp_path, "busy", seed=3, rules=(RULE,))
    step(third[1].version, "registered", artifact=third[0].as_uri())
    step(third[1].version, "champion")
    assert models.refresh(registry)
    assert models.current()["busy"].champion.version == third[1].version
    assert began["busy"].champion.version == first[1].version  # a batch keeps what it began with


@given(st.lists(st.text("ab/", min_size=1, max_size=5), min_size=1, max_size=3))
def test_a_subject_is_found_again_whatever_its_keys_hold(values: list[str]) -> None:
    keys = ("dealer_id", "category", "third")[: len(values)]
    entity = dict(zip(keys, values, strict=True))
    (subject,) = subjects_of({key: [value] for key, value in entity.items()}, keys)
    found = entities_of(subject, keys)
    assert entity in found
    assert all(subjects_of({k: [v] for k, v in each.items()}, keys) == [subject] for each in found)


def test_the_hot_path_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "from streams.views.score_view import ScoreView; from streams.views.insight_view import InsightView; "
        "import dealeriq.scoring, sys; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"mlflow", "lightgbm", "sklearn", "pandas", "torch", "feast", "pyarrow", "faust", "pyflink", "onnx"}
    assert not set(loaded.split()) & heavy
