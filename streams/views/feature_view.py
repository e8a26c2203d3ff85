"""The feature view: every tile topic, folded into the online feature store."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions

from connectors.registry import RegistryUnavailableError
from features.keys import clock_key
from features.plan import Plan
from features.tile_records import TileRecords
from features.writer import FeatureWriter
from schemas.catalogue import topic as declared
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["FeatureView"]


class FeatureView(View):
    """Folds `tiles.<view>` of every view of a plan into Redis, one writer a view.

    Args:
        store: a `redis.Redis` whose answers are bytes.
        plan: the compiled feature plan.
        fetch_schema: schema of a registry id (`Registry.schema`).
        partitions_of: how many partitions a source topic has.
    """

    name = "feature-view"
    retried = (redis.exceptions.RedisError, RegistryUnavailableError)

    def __init__(
        self,
        store: Any,
        plan: Plan,
        fetch_schema: Callable[[int], Any],
        partitions_of: Callable[[str], int] = lambda name: declared(name).partitions,
    ) -> None:
        self._store, self._clock_key = store, clock_key(plan.project)
        self._views = {view.topic: view for view in plan.views.values()}
        self._writers = {
            topic: FeatureWriter(store, view, plan.project, partitions=partitions_of(view.source_topic))
            for topic, view in self._views.items()
        }
        self._records = {topic: TileRecords(view, fetch_schema) for topic, view in self._views.items()}
        self.topics = tuple(self._views)
        self._meters = StageMeters(self.name)
        self._clock_ms = int(store_clock) if (store_clock := self._remembered()) else 0

    def positions(self) -> Position:
        """Return the position held in Redis."""
        found: Position = {}
        for writer in self._writers.values():
            found |= writer.positions()
        return found

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold tiles; a tile that is older than the stored one changes nothing."""
        by_topic: dict[str, list[Any]] = defaultdict(list)
        positions: dict[str, Position] = defaultdict(dict)
        for message in messages:
            topic = message.topic()
            positions[topic][topic, message.partition()] = message.offset() + 1
            if message.value() is not None:  # a tombstone: tiles end by retention, in the store, too
                by_topic[topic].append(message)
        produced_ms: list[int] = []
        clock_ms = self._clock_ms
        for topic, moved in positions.items():
            some = by_topic[topic]
            batch = self._records[topic].read([message.value() for message in some])
            updates: dict[tuple[str, ...], list[int]] = defaultdict(list)
            for i, entity in enumerate(batch.entities):
                if entity is not None:
                    updates[entity].append(i)
            self.refuse([(some[i], failure) for i, failure in batch.unreadable])
            self._writers[topic].write_packed(batch.packed, updates, moved)
            produced_ms += batch.ingested_ms
            clock_ms = max([clock_ms, *batch.packed.latest])
        self._move_clock(clock_ms)
        now_ms = time.time() * 1000
        self._meters.freshness([max(now_ms - each, 0.0) / 1000 for each in produced_ms])

    def _remembered(self) -> bytes | None:
        try:
            value: bytes | None = self._store.get(self._clock_key)
            return value
        except redis.exceptions.RedisError:
            return None  # the next tile moves it

    def _move_clock(self, clock_ms: int) -> None:
        # An event dated in the future must not take the clock, and with it every window, along.
        clock_ms = min(clock_ms, time.time_ns() // 1_000_000)
        if clock_ms > self._clock_ms:
            self._store.set(self._clock_key, clock_ms)
            self._clock_ms = clock_ms
            self._meters.event_time(clock_ms)
