"""Order lines to scores on a real Valkey: the right features, whatever comes, in any batches."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from line_model import INPUTS, line_model, order

from features.keys import entity_key, field, unwrap_bytes, value_proto
from features.merge import merge, reduced
from features.plan import load
from features.tiles import Tile, Tiles, decode, double_fields, encode, sketch_fields
from features.writer import FeatureWriter
from models.artifact import ArtifactError
from models.canary import in_share
from models.inputs import Code, EventField, Feature
from models.lifecycle import Lifecycle, decision
from models.runtime import Session
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers, parse_headers
from schemas.validate import problems
from streams.insights.explain import explain
from streams.lines.features import LineFeatures, moments
from streams.lines.models import LineModels
from streams.lines.scorer import LineScorer
from streams.lines.stage import LineStage
from streams.scoring.served import ServedModels
from streams.scoring.settings import ScoringSettings
from tests.lake_tables import FakeMessage, schema_of

PLAN = load(project="lines")
HOUR, DAY = 3_600_000, 86_400_000
NOON = 1_500_000_000_000 // DAY * DAY + 12 * HOUR
BUCKET = HOUR
SCORES = Decoder.of_topic("scores", schema_of("scores"))
ORDERS = Encoder("orders", 1).encode
VIEWS = {
    "product_demand": ("quantity_mean_90d", "quantity_std_90d"),
    "dealer_category_orders": ("amount_max_90d",),
    "dealer_orders": ("amount_mean_30d",),
}


def tiles_of(view: Any, rng: random.Random, around_ms: int) -> list[Tile]:
    """Tiles of the finest grain over some days up to after `around_ms`: a store that is ahead of the lines."""
    found = {}
    for _ in range(30):
        hop = (around_ms + rng.randrange(-20 * DAY, 3 * DAY)) // view.hop_ms * view.hop_ms
        doubles = tuple(rng.uniform(1, 50) for _ in double_fields(view))
        sketches = tuple(b"" for _ in sketch_fields(view))
        found[hop] = Tile(view.hop_ms // 1000, hop, rng.randrange(1, 9), doubles, sketches, hop + 1, (1,))
    return list(found.values())


def filled(client: Any, seed: int = 5) -> dict[tuple[str, tuple[str, ...]], Tiles]:
    """Write tiles of the dealers and products of `order`, but for some; return them."""
    client.flushall()
    rng, known = random.Random(seed), {}
    keys = {
        "product_demand": [(f"p{n}",) for n in range(15)],
        "dealer_category_orders": [(f"d{n}", kind) for n in range(4) for kind in ("FUEL", "GROCERY")],
        "dealer_orders": [(f"d{n}",) for n in range(4)],
    }
    for name, entities in keys.items():
        view = PLAN.views[name]
        writer = FeatureWriter(client, view, PLAN.project)
        updates = {entity: tiles_of(view, rng, NOON) for entity in entities}
        writer.write(updates, {(view.topic, 0): 1})
        for entity in entities:  # as the store keeps them: it lets go of what is beyond retention
            key = entity_key(view, dict(zip(view.entity, entity, strict=True)), PLAN.project)
            known[name, entity] = decode(unwrap_bytes(client.hget(key, field(name, "tiles"))))
    return known


def expected(known: Any, line: dict[str, Any], feature: str, bucket_ms: int = BUCKET) -> tuple[float, ...]:
    """The values that a line may be judged by: at the last hop over at any moment of the stretch before it."""
    name, _, column = feature.partition("__")
    view = PLAN.views[name]
    tiles = known.get((name, tuple(line[key] for key in view.entity)))
    times = (line["event_time"] - back for back in range(60_000, 60_000 + bucket_ms + 1, 60_000))
    moments = {time_ms // view.hop_ms * view.hop_ms - 1 for time_ms in times}
    alone = reduced(view, [column])
    found = [None if tiles is None else merge(alone, tiles, moment).values[0] for moment in moments]
    return tuple(np.nan if value is None else float(value) for value in found)


def seen(known: Any, line: dict[str, Any], feature: str) -> float:
    """The value as of the moment that `moments` says: what explains a score says the same moment."""
    name, _, column = feature.partition("__")
    view = PLAN.views[name]
    key = tuple(line[each] for each in view.entity)
    if (tiles := known.get((name, key))) is None:
        return np.nan
    (moment,) = moments(view, key, np.array([line["event_time"]]), BUCKET).tolist()
    (value,) = merge(reduced(view, [column]), tiles, moment).values
    return np.nan if value is None else float(value)


def test_features_are_those_of_a_moment_shortly_before_the_line(store: Any) -> None:
    known, rng = filled(store), random.Random(1)
    features = LineFeatures(store, PLAN, VIEWS, BUCKET)
    for step in range(3):
        # Times go back and forth, over several stretches, within one batch.
        lines = [order(i, rng, NOON + rng.randrange(-3 * HOUR, (step + 1) * HOUR)) for i in range(30)]
        found = features.of(pl.DataFrame(lines), np.array([each["event_time"] for each in lines]))
        assert set(found) == {f"{view}__{name}" for view, names in VIEWS.items() for name in names}
        for feature, column in found.items():
            for line, value in zip(lines, column.tolist(), strict=True):
                allowed = expected(known, line, feature)
                assert any(np.array_equal(value, each, equal_nan=True) for each in allowed)
                assert np.array_equal(value, seen(known, line, feature), equal_nan=True)
    merged = features.merged
    features.of(pl.DataFrame(lines), np.array([NOON + 2 * DAY] * len(lines)))
    again = features.merged
    features.of(pl.DataFrame(lines), np.array([NOON + 2 * DAY] * len(lines)))
    assert merged < again == features.merged  # the same stretch: nothing is read again


def test_a_line_is_never_among_its_own_features(store: Any) -> None:
    """However far ahead the store is: the hop of the line's own moment is not in them."""
    store.flushall()
    view = PLAN.views["product_demand"]
    day = NOON // DAY * DAY
    huge = Tile(86_400, day, 1, tuple(1e6 for _ in double_fields(view)), (), NOON, (1,))
    usual = Tile(86_400, day - DAY, 1, tuple(2.0 for _ in double_fields(view)), (), day - 1, (1,))
    FeatureWriter(store, view, PLAN.project).write({("p",): [usual, huge]}, {(view.topic, 0): 1})
    features = LineFeatures(store, PLAN, {"product_demand": ("quantity_max_90d",)}, BUCKET)
    lines = pl.DataFrame([{"product_id": "p"}])
    assert features.of(lines, np.array([NOON])) == {"product_demand__quantity_max_90d": [2.0]}


def test_who_is_new_has_no_features_and_not_none_of_anything(store: Any) -> None:
    """As in training, where nothing is known of a key before its first event."""
    store.flushall()
    view = PLAN.views["product_demand"]
    first = Tile(86_400, NOON // DAY * DAY, 1, tuple(2.0 for _ in double_fields(view)), (), NOON, (1,))
    FeatureWriter(store, view, PLAN.project).write({("p",): [first]}, {(view.topic, 0): 1})
    features = LineFeatures(store, PLAN, {"product_demand": ("count_90d",)}, BUCKET)
    lines = pl.DataFrame([{"product_id": "p"}])
    assert np.isnan(features.of(lines, np.array([NOON]))["product_demand__count_90d"]).all()
    assert features.of(lines, np.array([NOON + 2 * DAY])) == {"product_demand__count_90d": [1.0]}


def test_tiles_that_name_nothing_are_read_with_the_whole_views_order(store: Any) -> None:
    """As an earlier version stored them: a model of few features must not take one aggregate for another."""
    store.flushall()
    view = PLAN.views["product_demand"]
    doubles = tuple(float(10 + at) for at, _ in enumerate(double_fields(view)))
    old = encode([Tile(86_400, NOON // DAY * DAY - DAY, 1, doubles, (), NOON - DAY, (1,))])
    key = entity_key(view, {"product_id": "p"}, PLAN.project)
    store.hset(key, field(view.name, "tiles"), value_proto(old))
    features = LineFeatures(store, PLAN, {"product_demand": ("quantity_max_90d",)}, BUCKET)
    found = features.of(pl.DataFrame([{"product_id": "p"}]), np.array([NOON]))
    assert found == {"product_demand__quantity_max_90d": [doubles[double_fields(view).index("quantity_max")]]}


@pytest.mark.parametrize("name", ["product_demand", "dealer_category_orders", "dealer_orders"])
def test_a_reduced_view_merges_to_the_same(name: str) -> None:
    view, rng = PLAN.views[name], random.Random(3)
    names = [each.name for each in view.features if each.function != "approx_count_distinct"]
    rng.shuffle(names)
    tiles = decode(encode(tiles_of(view, rng, NOON), view))
    whole = dict(zip([each.name for each in view.features], merge(view, tiles, NOON).values, strict=True))
    assert list(merge(reduced(view, names), tiles, NOON).values) == [whole[each] for each in names]


class World:
    """The stage with a champion, and a challenger where one is wanted."""

    def __init__(self, client: Any, root: Path, sample: float = 1.0, share: float | None = None) -> None:
        self.registry, self.folders = Lifecycle(), [line_model(root, "odd_lines", seed) for seed in (1, 2)]
        self.models = LineModels(PLAN, stage="line-scorer")
        self.at = 0
        for where, told in self.folders:
            self.step(told.version, "registered", artifact=str(where), sha256=told.sha256)
        self.step(self.folders[0][1].version, "champion")
        if share is not None:
            self.step(self.folders[1][1].version, "challenger", share=share)
        self.models.refresh(self.registry)
        self.sessions = {told.version: Session(where) for where, told in self.folders}
        self.stage = LineStage(
            self.models, client, PLAN, schema_of("orders"), 7, ScoringSettings(line_sample=sample),
            clock=lambda: NOON / 1000 + DAY,
        )  # fmt: skip

    def step(self, version: str, stage: str, **more: Any) -> None:
        told = {"cause": f"c{self.at}", "event_time": NOON, "reason": "gates", **more}
        made = decision(self.registry.state("odd_lines"), version, stage, "x", **told)
        assert not self.registry.apply(made, self.at).void
        self.at += 1

    def handle(self, values: list[bytes | None]) -> list[dict[str, Any]]:
        messages = [
            FakeMessage("orders", 0, i, value, head=headers(f"h{i}", "orders", "t", NOON, "d"))
            for i, value in enumerate(values)
        ]
        found = []
        for each in self.stage.handle(messages):
            record = SCORES.decode(each.value)
            assert not problems("scores", record)
            assert each.key.decode() == record["dealer_id"]
            assert parse_headers(each.headers).event_id == record["event_id"]
            found.append(record)
        return found


def vector(record: dict[str, Any]) -> Any:
    values = [record["features"][each.name] for each in INPUTS]
    return np.array([[np.nan if each is None else each for each in values]], np.float32)


def test_each_line_is_scored_and_its_vector_repeats_the_score_to_the_bit(store: Any, tmp_path: Path) -> None:
    known, world, rng = filled(store), World(store, tmp_path), random.Random(2)
    lines = [order(i, rng, NOON + i * 1000) for i in range(120)]
    found = world.handle([ORDERS(each) for each in lines])
    assert [each["subject_id"] for each in found] == [each["event_id"] for each in lines]
    session = world.sessions[world.folders[0][1].version]
    told = 0
    for line, record in zip(lines, found, strict=True):
        assert session.run(vector(record))[0, 0] == record["score"] == record["outputs"]["odd"]
        assert record["features"]["quantity"] == line["quantity"]
        assert record["features"]["amount"] == float(np.float32(line["amount"]))
        assert record["features"]["kind"] == {"FUEL": 0.0, "GROCERY": 1.0}.get(line["category"])
        for each in INPUTS:
            if isinstance(each, Feature):
                allowed = expected(known, line, each.columns()[0])
                value = vector(record)[0, INPUTS.index(each)]
                assert any(np.array_equal(value, np.float32(one), equal_nan=True) for one in allowed)
        assert record["entity"]["product_id"] == line["product_id"]
        assert not record["shadow"]
        assert record["sampled"]
        assert bool(record["readings"]) == (record["score"] > 0.5)
        for reading in record["readings"]:
            told += 1
            assert 1 <= len(reading["reasons"]) <= 3
            assert "looks odd" in reading["text"]
    assert 10 < told < 110
    # Alone or in another batch: the same scores.
    alone = [record for line in lines[:20] for record in world.handle([ORDERS(line)])]
    for one, other in zip(alone, found, strict=False):
        assert one | {"latency_ms": 0} == other | {"latency_ms": 0}


def test_an_insights_score_is_explained_from_its_record_alone(store: Any, tmp_path: Path) -> None:
    filled(store)
    world, rng = World(store, tmp_path), random.Random(8)
    found = world.handle([ORDERS(order(i, rng, NOON)) for i in range(60)])
    session = world.sessions[world.folders[0][1].version]
    told = [each for each in found if each["readings"]]
    assert told
    for record in told:
        explained = explain(session, record)
        assert explained.same
        (reading,) = record["readings"]
        strongest = [(each["input"], each["by"]) for each in reading["reasons"]]
        upward = sorted((each for each in explained.inputs if each["by"] > 0), key=lambda each: -each["by"])
        assert strongest == [(each["input"], each["by"]) for each in upward[:3]]
        # A vector that is not the recorded one, by one bit, is noticed where it changes the answer.
        assert not explain(session, record | {"outputs": {"odd": np.nextafter(record["score"], 2.0)}}).same


def test_what_is_kept_is_what_is_told_and_an_even_sample(store: Any, tmp_path: Path) -> None:
    filled(store)
    rng = random.Random(4)
    values = [ORDERS(order(i, rng, NOON)) for i in range(1_500)]
    whole = {each["event_id"]: each for each in World(store, tmp_path).handle(values)}
    some = World(store, tmp_path, sample=0.1).handle(values)
    told = {each for each, record in whole.items() if record["score"] > 0.5}
    assert {each["event_id"] for each in some} >= told
    sample = [each for each in some if each["sampled"]]
    assert 90 < len(sample) < 210
    assert all(each["event_id"] in told for each in some if not each["sampled"])
    # The sample is even: as much of what is told as of the rest.
    share = len(told) / len(whole)
    assert abs(sum(each["event_id"] in told for each in sample) / len(sample) - share) < 0.1
    assert [each for each in World(store, tmp_path, sample=0.0).handle(values) if each["score"] <= 0.5] == []


def test_a_challenger_scores_the_same_vectors_in_shadow_and_a_canary_counts_for_its_share(
    store: Any, tmp_path: Path
) -> None:
    filled(store)
    rng = random.Random(6)
    values = [ORDERS(order(i, rng, NOON)) for i in range(300)]
    for share in (0.0, 0.3):
        world = World(store, tmp_path, share=share)
        found = world.handle(values)
        first, second = (told.version for _, told in world.folders)
        by_version = {v: [r for r in found if r["model_version"] == v] for v in (first, second)}
        assert [each["features"] for each in by_version[first]] == [e["features"] for e in by_version[second]]
        for mine, other in zip(by_version[first], by_version[second], strict=True):
            counts = share > 0 and in_share("odd_lines", mine["subject_id"], share)
            assert (mine["shadow"], other["shadow"]) == (counts, not counts)
            for each in (mine, other):
                assert world.sessions[each["model_version"]].run(vector(each))[0, 0] == each["score"]
                assert bool(each["readings"]) == (each["score"] > 0.5 and not each["shadow"])


def test_what_is_bad_is_left_out_and_the_rest_scored(store: Any, tmp_path: Path) -> None:
    filled(store)
    world, rng = World(store, tmp_path), random.Random(7)
    good = [order(i, rng, NOON) for i in range(6)]
    good[1]["event_time"] = NOON + 400 * DAY  # after the wall clock: seen with the features of now
    good[2]["category"] = "NEVER SEEN"
    good[3]["dealer_id"] = "nobody knows"
    bad: list[bytes | None] = [
        b"poison", None, ORDERS(good[0])[:-3], ORDERS(good[0]) + b"x", b"\x00\x00\x00\x00\x01",
        *(ORDERS(good[0] | {"amount": value}) for value in (float("nan"), float("inf"), -1.0)),
        ORDERS(good[0] | {"quantity": -5}), ORDERS(good[0] | {"event_id": ""}),
    ]  # fmt: skip
    values = [ORDERS(each) for each in good]
    found = world.handle([*bad[:5], *values[:3], *bad[5:], *values[3:]])
    assert {each["subject_id"] for each in found} == {each["event_id"] for each in good}
    by_id = {each["subject_id"]: each for each in found}
    assert by_id["line-2"]["features"]["kind"] is None
    assert by_id["line-3"]["features"]["dealer_mean"] is None
    assert by_id["line-1"]["features"]["product_mean"] is not None or good[1]["product_id"] >= "p15"
    assert all(np.isfinite(each["score"]) for each in found)
    assert world.handle(bad) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"inputs": (EventField("a", "nothing"),)}, "no number of an order line"),
        ({"inputs": (EventField("a", "brand"),)}, "no number of an order line"),
        ({"inputs": (EventField("a", "amount"), Code("b", "brand", ("X",)))}, "may read"),
        ({"inputs": (EventField("a", "amount"), Feature("b", "dealer_orders", "none"))}, "plan has not"),
        ({"inputs": (EventField("a", "amount"), Feature("b", "nowhere", "none"))}, "plan has not"),
    ],
)
def test_a_model_of_other_features_is_refused(tmp_path: Path, more: Any, words: str) -> None:
    where, told = line_model(tmp_path, "odd_lines")
    session = Session(where)
    object.__setattr__(session, "description", type(told)(**{**vars(told), **more, "rules": ()}))
    with pytest.raises(ArtifactError, match=words):
        LineScorer(session, PLAN)


def test_models_of_lines_and_of_entities_keep_to_their_own_stages(store: Any, tmp_path: Path) -> None:
    world = World(store, tmp_path)
    others = ServedModels(PLAN)
    others.refresh(world.registry)
    assert set(world.models.current()) == {"odd_lines"}
    assert others.current() == {}


def test_the_hot_path_imports_nothing_heavy() -> None:
    code = "import dealeriq.lines, sys; print(*{n.partition('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"mlflow", "lightgbm", "sklearn", "pandas", "torch", "feast", "faust", "pyflink", "onnx"}
    assert not set(loaded.split()) & heavy
