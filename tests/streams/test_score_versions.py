"""Versions of a model on a real Valkey: swaps, canaries, rollbacks and sweeps, score by score."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from score_world import HOUR, NOON, PLAN, CrashError, World
from scoring_model import folder

from models.canary import in_share
from models.lifecycle import Lifecycle, decision
from schemas.validate import problems
from streams.scoring.store import ScoreStore


class Swapping:
    """A world whose lifecycle is decided by the test, one step after another."""

    def __init__(self, store: Any, root: Path) -> None:
        self.root, self.registry, self.at = root, Lifecycle(), 0
        self.folders = {name: folder(root, "busy", seed=seed) for name, seed in (("old", 1), ("new", 2))}
        self.world = World(store, *self.folders["old"])
        self.hour = 0
        for name in self.folders:
            where, told = self.folders[name]
            self.step(name, "registered", artifact=str(where), sha256=told.sha256)

    def step(self, name: str, stage: str, **more: Any) -> None:
        told = {"cause": f"c{self.at}", "event_time": NOON, "reason": "gates", **more}
        record = decision(self.registry.state("busy"), self.folders[name][1].version, stage, "x", **told)
        assert not self.registry.apply(record, self.at).void
        self.at += 1
        self.world.models.refresh(self.registry)

    def scores(self, dealers: int = 40) -> list[dict[str, Any]]:
        """Score everybody in the next hour, on the same week's amounts."""
        self.hour += 1
        before = len(self.world.topic.records)
        for dealer in range(dealers):
            self.world.order(f"d{dealer}", "FUEL", 10.0 * (dealer + 1), NOON + self.hour * HOUR)
            self.world.fold()
        self.world.score()
        return self.world.topic.records[before:]


def test_a_canary_counts_for_its_share_and_everybody_is_scored_by_both(store: Any, tmp_path: Path) -> None:
    swapping = Swapping(store, tmp_path)
    old, new = (told.version for _, told in swapping.folders.values())
    swapping.step("old", "champion")
    swapping.step("new", "challenger", share=0.3)
    found = swapping.scores()
    for version in (old, new):
        assert len({each["subject_id"] for each in found if each["model_version"] == version}) == 40
    counts = {each["subject_id"]: each["model_version"] for each in found if not each["shadow"]}
    assert len(counts) == 40  # one score of each counts
    assert counts == {each: new if in_share("busy", each, 0.3) else old for each in counts}
    assert 0 < list(counts.values()).count(new) < 30
    assert all(bool(each["readings"]) is not each["shadow"] for each in found)
    again = {each["subject_id"]: each["model_version"] for each in swapping.scores() if not each["shadow"]}
    assert again == counts  # the same subjects as before
    swapping.world.score()
    assert len(swapping.world.topic.records) == 4 * 40  # each bucket once, by either version


def test_a_canary_that_fails_costs_nobody_a_score(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapping = Swapping(store, tmp_path)
    swapping.step("old", "champion")
    swapping.step("new", "challenger", share=0.9)
    challenger = swapping.world.models.current()["busy"].challenger
    assert challenger is not None

    def broken(_vectors: Any) -> Any:
        raise RuntimeError("it ran out of memory")

    monkeypatch.setattr(challenger.session, "run", broken)
    found = swapping.scores()
    assert {each["model_version"] for each in found} == {swapping.folders["old"][1].version}
    assert len(found) == 40
    assert not any(each["shadow"] for each in found)


def test_a_rollback_restores_the_earlier_scores_to_the_bit(store: Any, tmp_path: Path) -> None:
    swapping = Swapping(store, tmp_path)

    def counted() -> dict[str, tuple[Any, ...]]:
        """What counts of the same amounts, scored afresh."""
        world, swapping.hour = World(store, *swapping.folders["old"]), 0
        world.models = swapping.world.models
        world.restart()
        swapping.world = world
        return {
            each["subject_id"]: (each["score"], each["outputs"], each["features"], each["readings"])
            for each in swapping.scores()
            if not each["shadow"]
        }

    def plain(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        return {name: (score, outputs, features) for name, (score, outputs, features, _) in found.items()}

    swapping.step("old", "champion")
    before = counted()
    swapping.step("new", "champion")
    between = counted()
    swapping.step("old", "challenger", reason="canary")
    swapping.step("old", "champion", reason="rollback")
    after = counted()
    assert len(before) == 40
    assert plain(after) == plain(before)
    assert all(plain(between)[each][0] != plain(before)[each][0] for each in before)


def swept(swapping: Swapping) -> list[dict[str, Any]]:
    """What some time without any event brings."""
    world, before, began = swapping.world, len(swapping.world.topic.records), time.monotonic()
    store, decided = ScoreStore(world.client, PLAN.project), world.models.current()["busy"].champion.decided_at
    while store.swept().get("busy") != decided or time.monotonic() < began + 0.2:
        world.view.spare()
        assert time.monotonic() < began + 60
    return world.topic.records[before:]


def told(found: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {each["subject_id"]: (each["score"], each["outputs"], each["features"]) for each in found}


def test_a_new_champion_scores_everybody_at_once_and_a_rollback_restores_every_score_to_the_bit(
    store: Any, tmp_path: Path
) -> None:
    swapping = Swapping(store, tmp_path)
    old, new = (told.version for _, told in swapping.folders.values())
    swapping.step("old", "champion")
    swapping.world.restart()
    first = told(swapping.scores())
    assert swept(swapping) == []  # the first champion has read everybody
    swapping.step("new", "champion")
    # The store is away in the middle, and then the scorer is killed: it begins again, with the same ids.
    swapping.world.topic.crash = True
    with pytest.raises(CrashError):
        swapping.world.view.spare()
    swapping.world.restart()
    found = swept(swapping)
    assert {each["model_version"] for each in found} == {new}
    assert told(found).keys() == first.keys()
    assert all(told(found)[each][0] != first[each][0] for each in first)
    every = [each["event_id"] for each in swapping.world.topic.records if each["model_version"] == new]
    assert len(set(every)) == len(first) < len(every)
    assert not [each for each in found if problems("scores", each)]
    assert swept(swapping) == []
    swapping.step("old", "champion", reason="rollback")
    back = swept(swapping)
    assert {each["model_version"] for each in back} == {old}
    assert told(back) == first
    swapping.world.restart()
    assert swept(swapping) == []
    # Who was swept is scored again when something changes, and only then.
    assert len(swapping.scores(3)) == 3
    swapping.world.score()
    assert swept(swapping) == []


def test_what_changes_during_a_sweep_waits_for_one_piece_of_it(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.scoring.sweep._AT_ONCE", 10)
    monkeypatch.setattr("streams.views.score_view._SWEEP_S", 0.0)
    swapping = Swapping(store, tmp_path)
    swapping.step("old", "champion")
    swapping.world.restart()
    everybody = told(swapping.scores()).keys()
    swapping.step("new", "champion")
    records, before = swapping.world.topic.records, len(swapping.world.topic.records)
    assert swapping.world.view.spare()  # more of it waits
    assert len(records) == before + 10
    fresh = swapping.scores(5)  # events of the next hour
    assert len(fresh) == 5
    swept(swapping)
    after = records[before:]
    assert {each["model_version"] for each in after} == {swapping.folders["new"][1].version}
    assert {each["subject_id"] for each in after} == everybody
    places = [(each["subject_id"], each["event_time"]) for each in after]
    assert len(places) == len(set(places))  # nobody twice as of the same moment


def test_a_sweep_with_a_canary_leaves_one_score_that_counts(store: Any, tmp_path: Path) -> None:
    swapping = Swapping(store, tmp_path)
    swapping.step("old", "champion")
    swapping.world.restart()
    everybody = told(swapping.scores()).keys()
    swapping.step("new", "champion")
    swapping.step("old", "challenger", share=0.3)
    found = swept(swapping)
    assert len(found) == 2 * len(everybody)
    counts = [each["subject_id"] for each in found if not each["shadow"]]
    assert sorted(counts) == sorted(everybody)
