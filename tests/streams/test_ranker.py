"""The model that ranks reads in the stream what it was trained on; what cannot rank takes nobody's place."""

from dataclasses import replace

import numpy as np
import pytest
from ranking_model import folder
from recommend_run import World, history
from recommend_world import DAY_MS, NOW_MS, dealer, messages

from models.artifact import MODEL as FILE
from models.artifact import ArtifactError
from models.inputs import EventField
from models.lifecycle import TOPIC, Lifecycle, decision
from models.recommend.candidates import COLUMNS
from models.recommend.decay import EPOCH_S
from models.recommend.memory import Memory
from models.recommend.records import NEIGHBOURS
from models.recommend.settings import RecommendSettings
from models.runtime import Session
from models.training.events import Stream
from models.training.lists import Replay
from streams.recommend.offer import RankerOffer
from streams.recommend.rank import Ranking
from streams.recommend.ranker import MODEL, ModelRanker
from tests.lake_tables import write_events


class Watched(ModelRanker):
    """The real one, which keeps what it was given."""

    def at(self, now_s):
        scores = super().at(now_s)

        def watched(columns):
            self.given = columns
            return scores(columns)

        return watched


@pytest.fixture
def world(store):
    return World(store)


@pytest.fixture
def ranker(tmp_path):
    return Watched(Session(folder(tmp_path)[0]))


def test_a_reader_gives_it_what_a_training_set_holds(world, ranker, tmp_path):
    """The same lines through the view and Redis, and through the lake and memory: the same columns.

    Which neighbours stay of a product that has too many depends on how the log is cut: here none has.
    """
    given = history(7, dealers=20, products=NEIGHBOURS, orders=200)
    lines = sorted(given, key=lambda each: each["event_time"])
    dealers = [dealer(f"d{each}", "North" if each % 2 else "South") for each in range(20)]
    write_events(tmp_path / "lake", "orders", [each | {"event_id": f"{i}"} for i, each in enumerate(lines)])
    write_events(tmp_path / "lake", "dealers", dealers)
    world.view.apply(messages("dealers", dealers))
    for start in range(0, len(lines), 97):
        world.view.apply(messages("orders", lines[start : start + 97], start))
    settings = RecommendSettings()
    with Stream(tmp_path / "lake") as stream:
        orders = stream.events("orders", ["dealer_id", "order_id", "product_id", "category"])
        replay = Replay(stream, orders, settings)
    replay.until(lines[-1]["event_time"])
    compared = 0
    for who in (each["dealer_id"] for each in dealers):
        found = world.recommend(who, ranker=ranker)
        there = replay.memory.candidates(who, settings)
        rows = there.shortlist(np.array([bool(tail) for tail in there.items.tails]))
        told = there.columns(rows)
        assert tuple(told) == COLUMNS == tuple(ranker.given)
        for name in COLUMNS:
            assert ranker.given[name] == pytest.approx(told[name], rel=1e-5, abs=1e-6, nan_ok=True), name
        names = [there.items.name(row).product_id for row in rows.tolist()]
        scores = ranker.at(there.reading.now_s)(told)
        best = [names[at] for at in np.lexsort((there.items.products[rows], -scores))]
        assert [each.product_id for each in found.items] == best[:20]
        assert found.model_version == ranker.version
        compared += len(rows)
    assert compared > 100


def test_who_never_ordered_is_ranked_by_nobody(world, ranker):
    world.view.apply(messages("orders", history(3)))
    found = world.recommend("nobody", ranker=ranker)
    assert found.model_version is None
    assert found.items == world.recommend("nobody").items


def test_a_category_is_ranked_by_it_too(world, ranker):
    world.view.apply(messages("orders", history(5, products=60)))
    found = world.recommend("d0", category="TOOLS", ranker=ranker)
    assert found.model_version == ranker.version
    assert {each.category for each in found.items} <= {"TOOLS"}
    scores = [each.score for each in found.items if each.score]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < each <= 1 for each in scores)


def test_a_memory_that_holds_nothing_has_no_candidates():
    found = Memory().candidates("anyone", RecommendSettings())
    assert len(found.items.products) == len(found.shortlist(np.zeros(0, np.bool_))) == 0


class Registry:
    """A lifecycle with versions of the ranker."""

    def __init__(self):
        self.lifecycle, self.at = Lifecycle(), 0

    def step(self, version, stage, artifact="", sha256=""):
        record = decision(
            self.lifecycle.state(MODEL), version, stage, "a test", cause=f"{TOPIC} {self.at}",
            reason="gates", event_time=NOW_MS + self.at, artifact=artifact, sha256=sha256,
        )  # fmt: skip
        assert not self.lifecycle.apply(record, self.at).void
        self.at += 1

    def champion(self, where, told):
        if told.version not in self.lifecycle.state(MODEL).versions:
            self.step(told.version, "registered", str(where), told.sha256)
        self.step(told.version, "champion")


def test_the_champion_is_offered_and_another_takes_its_place(store, tmp_path):
    project = World(store).project
    offer, registry = RankerOffer(store, project), Registry()
    key = Ranking(project).keys.ranker
    assert not offer.refresh(registry.lifecycle)
    assert not store.exists(key)
    first, second = folder(tmp_path), folder(tmp_path, most=False)
    registry.champion(*first)
    assert offer.refresh(registry.lifecycle)
    assert not offer.refresh(registry.lifecycle)
    taken = ModelRanker.unpack(store.hget(key, "description"), store.hget(key, "onnx"))
    assert taken.version == first[1].version
    columns = {name: np.linspace(0, 9, 8) for name in COLUMNS}
    assert (taken.at(500_000_000)(columns) == ModelRanker(Session(first[0])).at(500_000_000)(columns)).all()
    registry.champion(*second)
    assert offer.refresh(registry.lifecycle)
    assert store.hget(key, "version").decode() == second[1].version
    store.delete(key)  # whoever empties the store
    assert offer.refresh(registry.lifecycle)


@pytest.mark.parametrize("broken", ["cut", "gone", "foreign", "settings"])
def test_what_cannot_rank_takes_nobodys_place(store, tmp_path, broken):
    project = World(store).project
    settings = RecommendSettings(half_life_days=7) if broken == "settings" else None
    offer, registry = RankerOffer(store, project, settings), Registry()
    key = Ranking(project).keys.ranker
    where, told = folder(tmp_path)
    if broken != "settings":
        registry.champion(where, told)
        assert offer.refresh(registry.lifecycle)
    held = store.hget(key, "version")
    other, its = folder(tmp_path, most=False)
    if broken == "foreign":
        inputs = (EventField("price", "price"), *its.inputs[1:])
        other, its = folder(tmp_path / "foreign", most=False, inputs=inputs, version="foreign")
    registry.champion(other, its)
    if broken == "cut":
        (other / FILE).write_bytes(b"short")
    elif broken == "gone":
        (other / FILE).unlink()
    assert not offer.refresh(registry.lifecycle)
    assert store.hget(key, "version") == held


def test_a_model_of_something_else_ranks_nothing(tmp_path):
    where, told = folder(tmp_path)
    session = Session(where)
    session.description = replace(told, name="churn")
    with pytest.raises(ArtifactError, match="churn"):
        ModelRanker(session)
    assert EPOCH_S * 1000 < NOW_MS - 9 * DAY_MS
