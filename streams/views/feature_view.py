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
from features.tiles import Tile, tile_reader
from features.writer import FeatureWriter
from schemas.codec import Decoder, UndecodableError
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["FeatureView"]


class FeatureView(View):
    """Folds `tiles.<view>` of every view of a plan into Redis, one writer a view.

    Args:
        store: a `redis.Redis` whose answers are bytes.
        plan: the compiled feature plan.
        fetch_schema: schema of a registry id (`Registry.schema`).
    """

    name = "feature-view"
    retried = (redis.exceptions.RedisError, RegistryUnavailableError)

    def __init__(self, store: Any, plan: Plan, fetch_schema: Callable[[int], Any]) -> None:
        self._store, self._clock_key = store, clock_key(plan.project)
        self._views = {view.topic: view for view in plan.views.values()}
        self._writers = {topic: FeatureWriter(store, view, plan.project) for topic, view in self._views.items()}
        self._decoders = {topic: Decoder.of_topic(topic, fetch_schema) for topic in self._views}
        self._readers = {topic: tile_reader(view) for topic, view in self._views.items()}
        self.topics = tuple(self._views)
        self._meters = StageMeters(self.name)
        self._clock_ms = int(store_clock) if (store_clock := self._remembered()) else 0

    def positions(self) -> Position:
        """Return the position held in Redis."""
        found: Position = {}
        for writer in self._writers.values():
            found |= writer.positions()
        return found

    def apply(self, messages: Sequence[Any]) -> Sequence[tuple[Any, Exception]]:
        """Fold tiles; a tile that is older than the stored one changes nothing."""
        updates: dict[str, dict[tuple[str, ...], list[Tile]]] = defaultdict(lambda: defaultdict(list))
        positions: dict[str, Position] = defaultdict(dict)
        unreadable: list[tuple[Any, Exception]] = []
        produced_ms: list[int] = []
        clock_ms = self._clock_ms
        for message in messages:
            topic = message.topic()
            positions[topic][topic, message.partition()] = message.offset() + 1
            value = message.value()
            if value is None:  # a tombstone: tiles end by retention, in the store, too
                continue
            view = self._views[topic]
            try:
                record = self._decoders[topic].decode(value)
                tile = self._readers[topic](record)
                entity = tuple(str(record[key]) for key in view.entity)
            except (UndecodableError, KeyError, TypeError, ValueError) as failure:
                unreadable.append((message, failure))
                continue
            updates[topic][entity].append(tile)
            clock_ms = max(clock_ms, tile.max_event_time)
            if (ingested := record.get("max_ingest_time")) is not None:
                produced_ms.append(ingested)
        for topic, moved in positions.items():
            self._writers[topic].write(updates[topic], moved)
        self._move_clock(clock_ms)
        now = time.time()
        self._meters.freshness(max(now - each / 1000, 0.0) for each in produced_ms)
        return unreadable

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
