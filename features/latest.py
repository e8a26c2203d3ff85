"""Read entities as of their own newest events: what a scorer reads when features have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.keys import entity_key, field, unwrap_bytes
from features.merge import MergedRow, merge
from features.plan import Plan, ViewPlan
from features.tiles import Tiles, decode

__all__ = ["LatestReader", "Moment"]

_NOTHING = 0


class Moment:
    """One entity as it was read: `time_ms` is its newest event, `rows` the merged row of each view then.

    `time_ms` is None where the store holds nothing of it, or only events after the limit that was given.
    """

    __slots__ = ("rows", "time_ms")

    def __init__(self, time_ms: int | None, rows: dict[str, MergedRow]) -> None:
        self.time_ms, self.rows = time_ms, rows


class LatestReader:
    """Reads with a `redis.Redis` whose answers are bytes, in one round trip for any number of entities."""

    def __init__(self, redis: Any, plan: Plan) -> None:
        self._redis, self._plan = redis, plan

    def read(self, views: Sequence[str], entities: Sequence[Mapping[str, str]], until_ms: int) -> list[Moment]:
        """Return each entity's views at the time of its newest event up to `until_ms`.

        Views of all of an entity's keys tell its time; a view of some of them (a dealer's, for a dealer's
        category) is read at that time, too. Raises CorruptBlobError and redis errors.
        """
        plans = [self._plan.views[name] for name in views]
        wanted = {
            (view.name, key): None
            for entity in entities
            for view, key in zip(plans, self._keys(plans, entity), strict=True)
        }
        pipeline = self._redis.pipeline(transaction=False)
        for name, key in wanted:
            pipeline.hget(key, field(name, "tiles"))
        blobs = dict(zip(wanted, pipeline.execute(), strict=True))
        tiles = {place: decode(unwrap_bytes(blob)) if blob else None for place, blob in blobs.items()}
        merged: dict[tuple[str, bytes, int], MergedRow] = {}
        return [self._moment(plans, entity, tiles, merged, until_ms) for entity in entities]

    def _moment(
        self,
        plans: Sequence[ViewPlan],
        entity: Mapping[str, str],
        tiles: Mapping[tuple[str, bytes], Tiles | None],
        merged: dict[tuple[str, bytes, int], MergedRow],
        until_ms: int,
    ) -> Moment:
        keys = self._keys(plans, entity)
        time_ms = None
        for view, key in zip(plans, keys, strict=True):
            held = tiles[view.name, key]
            if held is None or len(view.entity) != len(entity):
                continue
            times = held.max_event_time[held.max_event_time <= until_ms]
            if len(times):
                time_ms = max(time_ms or _NOTHING, int(times.max()))
        if time_ms is None:
            return Moment(None, {})
        rows = {}
        for view, key in zip(plans, keys, strict=True):
            # What is merged is the same all through a hop: a dealer's row is made once for all its categories.
            place = view.name, key, time_ms // view.hop_ms
            row = merged.get(place)
            if row is None:
                row = merged[place] = merge(view, tiles[view.name, key], time_ms)
            rows[view.name] = row
        return Moment(time_ms, rows)

    def _keys(self, plans: Sequence[ViewPlan], entity: Mapping[str, str]) -> list[bytes]:
        return [entity_key(view, entity, self._plan.project) for view in plans]
