"""The score view: features that changed, as tiles tell, become scores.

It is a fold like the others: the position is kept in the store, with what the fold remembers. A change is
scored after the feature view has folded it (its own position says so), so a score's features hold its cause.
Scores are in Kafka before the position moves: a crash in between repeats them with the same ids.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis.exceptions

from connectors.kafka import KafkaUnavailableError, Producer
from connectors.registry import RegistryRefusedError, RegistryUnavailableError
from features.latest import Latest, LatestReader
from features.plan import Plan, ViewPlan
from features.tile_records import TileRecords
from models.oip.client import RemoteUnavailableError
from schemas.envelope import parse_headers
from schemas.errors import DealerIQError
from streams.metrics import StageMeters
from streams.scoring.producing import Caused, ScoreProducer
from streams.scoring.scorer import Changes, Scorer, subjects_of
from streams.scoring.scores import Scores
from streams.scoring.served import Served, ServedModels
from streams.scoring.settings import ScoringSettings
from streams.scoring.store import ScoreStore
from streams.scoring.sweep import Sweep, entities_of
from streams.views.view import Position, View

__all__ = ["FeaturesBehindError", "ScoreView"]

_LOOK_S = 0.002
_SWEEP_S = 0.015  # of a piece, while a new champion scores everybody: what changes meanwhile waits no longer
_SWEEP_SHARE = 0.25  # of the time


@dataclass(frozen=True, slots=True)
class _Due:
    """An entity to be scored, and why: the id of a cause, and the message behind it (None: a decision)."""

    entity: dict[str, str]
    cause_id: str
    message: Any = None


class FeaturesBehindError(DealerIQError):
    """The feature view has not folded the changes that are to be scored; nothing is scored until it has."""

    remedy = "See that the feature view runs; scoring goes on by itself."
    exit_code = 4


class ScoreView(View):
    """Scores entities whose tiles changed, at most once in each bucket of event time; and, between batches,
    everybody once by a new champion.

    Outcomes that are counted: `produced`, `shadow`, `canary` (the canary's score counts, and the champion's is
    the shadow), `swept` (by a new champion, without a change), `debounced` (the bucket was scored), `future`
    (dated after the wall clock: no score waits for it), `without_features`, `coarse` (tiles of coarser grains
    repeat finer ones), `unserved` (no model), `tombstone`.

    Args:
        store: positions and buckets.
        reader: the online store.
        models: what is served; looked at once a batch.
        plan: the compiled feature plan.
        topics: tile topics to read.
        producer: where scores go.
        fetch_schema: schema of a registry id (`Registry.schema`).
        schema_id: returns the registry's id of the schema of scores; asked once.
        clock: the wall clock, s since the epoch.
    """

    name = "score-view"
    retried = (
        redis.exceptions.RedisError, RegistryUnavailableError, RegistryRefusedError, KafkaUnavailableError,
        FeaturesBehindError, RemoteUnavailableError,
    )  # fmt: skip

    def __init__(
        self,
        store: ScoreStore,
        reader: LatestReader,
        models: ServedModels,
        plan: Plan,
        topics: Iterable[str],
        producer: Producer,
        fetch_schema: Callable[[int], Any],
        schema_id: Callable[[], int],
        settings: ScoringSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._reader, self._models = store, reader, models
        self._settings, self._clock = settings or ScoringSettings(), clock
        self._bucket_ms = max(1, round(self._settings.bucket_s * 1000))
        self._views: dict[str, ViewPlan] = {view.topic: view for view in plan.views.values()}
        self.topics = tuple(topics)
        self._records = {name: TileRecords(self._views[name], fetch_schema) for name in self.topics}
        self._sender = ScoreProducer(producer, schema_id, self.name)
        self._meters = StageMeters(self.name)
        self._sweep = Sweep(store)
        self._sweep_again = 0.0

    def positions(self) -> Position:
        """Return the position held in Redis."""
        self._sweep.begin(self._models.current())
        return self._store.positions()

    def spare(self) -> bool:
        """Go on with the sweeps of new champions, a quarter of the time."""
        began = time.monotonic()
        if began >= self._sweep_again:
            self._sweep_on(began + _SWEEP_S)
            ended = time.monotonic()
            self._sweep_again = ended + (ended - began) * (1 / _SWEEP_SHARE - 1)
        return self._sweep.going

    def _sweep_on(self, ends: float) -> None:
        for name, served, subjects in self._sweep.due(self._models.current()):
            try:
                self._score_anew(served, subjects)
            except BaseException:
                self._sweep.again(name)
                raise
            if time.monotonic() > ends:
                return

    def apply(self, messages: Sequence[Any]) -> None:
        """Score what changed; tiles that cannot be read are the feature view's dead letters, not ours."""
        behind: Position = {}
        for message in messages:
            place = message.topic(), message.partition()
            behind[place] = max(behind.get(place, 0), message.offset() + 1)
        served = self._models.current()
        changes = self._changes(messages)
        due = self._due(changes, served)
        produced: list[Caused] = []
        scored: dict[tuple[str, str], int] = {}
        if due:
            self._wait_for(behind, {view for each in served.values() for view in each.champion.triggers})
            for name, waiting in due.items():
                produced += self._score(served[name], waiting, scored)
            self._sender.send(produced)
        self._store.commit(scored, behind)
        for name in due:
            self._sweep.met(name, served[name], (subject for model, subject in scored if model == name))
        self._count_produced(produced)

    def _changes(self, messages: Sequence[Any]) -> dict[tuple[str, ...], dict[tuple[str, ...], list[Any]]]:
        """The changed entities by their keys: each with its messages and event times, in the log's order."""
        by_topic: dict[str, list[Any]] = defaultdict(list)
        tombstones = 0
        for message in messages:
            if message.value() is None:
                tombstones += 1
            else:
                by_topic[message.topic()].append(message)
        found: dict[tuple[str, ...], dict[tuple[str, ...], list[Any]]] = {}
        coarse = 0
        for topic, some in by_topic.items():
            view = self._views[topic]
            batch = self._records[topic].read([message.value() for message in some])
            finest = view.hop_ms // 1000
            entities = found.setdefault(view.entity, {})
            for i, entity in enumerate(batch.entities):
                if entity is None:
                    continue
                if batch.packed.grain[i] != finest:
                    coarse += 1
                    continue
                entities.setdefault(entity, []).append((some[i], batch.packed.latest[i]))
        self._count(tombstone=tombstones, coarse=coarse)
        return found

    def _due(
        self,
        changes: Mapping[tuple[str, ...], Mapping[tuple[str, ...], list[Any]]],
        served: Mapping[str, Served],
    ) -> dict[str, list[_Due]]:
        """For each model, the entities with a change in a bucket that was not scored, and what changed them."""
        now_ms = int(self._clock() * 1000)
        asked: dict[str, dict[str, tuple[dict[str, str], list[Any]]]] = {}
        wanted_by: set[tuple[str, ...]] = set()
        future = 0
        for name, each in served.items():
            champion = each.champion
            for keys, entities in changes.items():
                if set(keys) != set(champion.entity):
                    continue
                wanted_by.add(keys)
                subjects = asked.setdefault(name, {})
                columns = {key: [values[at] for values in entities] for at, key in enumerate(keys)}
                named = subjects_of(columns, champion.entity)
                for subject, values, places in zip(named, entities, entities.values(), strict=True):
                    present = [place for place in places if place[1] <= now_ms]
                    future += len(places) - len(present)
                    if present:
                        entity = dict(zip(keys, values, strict=True))
                        _, known = subjects.setdefault(subject, (entity, []))
                        known += present
        last = self._store.scored({name: list(subjects) for name, subjects in asked.items()})
        due: dict[str, list[_Due]] = {}
        debounced = 0
        for name, subjects in asked.items():
            for subject, (entity, places) in subjects.items():
                newest = last.get((name, subject))
                fresh = [m for m, at in places if newest is None or self._bucket(at) > newest]
                if fresh:
                    # The first change of the bucket is the cause, however the log is cut into batches.
                    due.setdefault(name, []).append(_Due(entity, _cause(fresh[0]), fresh[0]))
                debounced += len(places) - min(1, len(fresh))
        unserved = sum(
            len(places) for keys, entities in changes.items() if keys not in wanted_by
            for places in entities.values()
        )  # fmt: skip
        self._count(debounced=debounced, future=future, unserved=unserved)
        return due

    def _wait_for(self, behind: Position, views: Iterable[str]) -> None:
        """Wait until the feature view holds every change of this batch. Raises FeaturesBehindError."""
        names = [view for view in views if f"tiles.{view}" in self.topics]
        deadline = time.monotonic() + self._settings.wait_s
        while True:
            held = self._store.readable(names)
            missing = [place for place, offset in behind.items() if held.get(place, 0) < offset]
            if not missing:
                return
            if time.monotonic() > deadline:
                topic, partition = missing[0]
                raise FeaturesBehindError(
                    f"{topic}[{partition}]: changes up to {behind[missing[0]]} are to be scored, and the "
                    f"feature view is at {held.get(missing[0], 0)}"
                )
            time.sleep(_LOOK_S)

    def _score(self, served: Served, due: Sequence[_Due], scored: dict[tuple[str, str], int]) -> list[Caused]:
        if not due:
            return []
        keys = {name: [each.entity[name] for each in due] for name in due[0].entity}
        changes = Changes(keys, [each.cause_id for each in due])
        latest = self._reader.read(served.features, keys, int(self._clock() * 1000))
        beside = self._beside(served.challenger, changes, latest)
        # A canary counts only where it has answered: one that fails leaves every subject to the champion.
        left = {subject for each in beside for subject, _ in each.counting()}
        scores, without = served.champion.score(changes, latest, self._bucket_ms, left)
        self._count(without_features=without, canary=len(left))
        found = []
        for scorer, each in ((served.champion, scores), *((served.challenger, each) for each in beside)):
            assert scorer is not None
            for subject, time_ms in each.counting():
                scored[scorer.model, subject] = self._bucket(time_ms)
            found.append(Caused(scorer, each, [due[row].message for row in each.rows.tolist()]))
        return found

    def _score_anew(self, served: Served, subjects: Sequence[str]) -> None:
        """Score subjects as they are, because the champion changed; who left the store gets none."""
        possible = [
            _Due(entity, served.decision)
            for subject in subjects
            for entity in entities_of(subject, served.champion.entity)
        ]
        scored: dict[tuple[str, str], int] = {}
        produced = self._score(served, possible, scored)
        self._sender.send(produced)
        self._store.commit(scored, {})
        self._count_produced(produced)
        self._count(swept=len(scored))

    def _beside(self, challenger: Scorer | None, changes: Changes, latest: Latest) -> list[Scores]:
        if challenger is None:
            return []
        try:
            return [challenger.score(changes, latest, self._bucket_ms)[0]]
        except Exception as error:  # a challenger that fails must cost nobody a score
            self._meters.error(error)
            return []

    def _bucket(self, time_ms: int) -> int:
        return time_ms // self._bucket_ms * self._bucket_ms

    def _count_produced(self, produced: Sequence[Caused]) -> None:
        acted = sum(int(each.scores.counts.sum()) for each in produced)
        self._count(produced=acted, shadow=sum(len(each.scores) for each in produced) - acted)
        if any(len(each.scores) for each in produced):
            now_ms = time.time() * 1000
            self._meters.freshness(
                max(now_ms - cause.timestamp()[1], 0.0) / 1000
                for each in produced for cause in each.causes if cause is not None
            )  # fmt: skip
            self._meters.event_time(max(int(each.scores.times.max(initial=0)) for each in produced))

    def _count(self, **outcomes: int) -> None:
        for outcome, records in outcomes.items():
            if records:
                self._meters.count(outcome, records)


def _cause(message: Any) -> str:
    """The id of the tile record that says so; one without an envelope is named by its position."""
    known = parse_headers(message.headers()).event_id
    return known or f"{message.topic()}:{message.partition()}:{message.offset()}"
