"""Read entities as of their own newest events: what a scorer reads when features have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.keys import entity_key, field, unwrap_bytes
from features.merge import reduced
from features.merge_many import merge_many
from features.plan import Plan, ViewPlan
from features.tiles import Tiles, align, decode

__all__ = ["Latest", "LatestReader"]

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Latest:
    """Entities as they were read, a row each: `times` are their newest events, `columns` their features then.

    A column is named `view__feature`; NaN is no value. `known` is false where the store holds nothing of an
    entity, or only events after the limit that was given; its row says nothing then.
    """

    known: NDArray[np.bool_]
    times: Longs
    columns: dict[str, Floats]


class LatestReader:
    """Reads with a `redis.Redis` whose answers are bytes, in one round trip for any number of entities."""

    def __init__(self, redis: Any, plan: Plan) -> None:
        self._redis, self._plan = redis, plan
        self._reduced: dict[tuple[str, tuple[str, ...]], ViewPlan] = {}

    def read(
        self, wanted: Mapping[str, Sequence[str]], keys: Mapping[str, Sequence[str]], until_ms: int
    ) -> Latest:
        """Return features of entities at the time of the newest event of each up to `until_ms`.

        `wanted` are the features of each view, `keys` a column of each of the entities' keys. Views of all keys
        tell an entity's time; a view of some of them (a dealer's, for a dealer's category) is read at that
        time, too. Raises CorruptBlobError and redis errors.
        """
        views = [self._view(name, tuple(names)) for name, names in wanted.items()]
        places = [_distinct([keys[name] for name in view.entity]) for view in views]
        pipeline = self._redis.pipeline(transaction=False)
        for view, (entities, _) in zip(views, places, strict=True):
            where = field(view.name, "tiles")
            for entity in entities:
                named = dict(zip(view.entity, entity, strict=True))
                pipeline.hget(entity_key(view, named, self._plan.project), where)
        blobs = iter(pipeline.execute())
        held = [
            [self._tiles(name, blob) if (blob := next(blobs)) else None for _ in entities]
            for name, (entities, _) in zip(wanted, places, strict=True)
        ]
        count = len(next(iter(keys.values())))
        times = np.full(count, -1, np.int64)
        for view, (_, which), tiles in zip(views, places, held, strict=True):
            if len(view.entity) == len(keys):
                newest = np.fromiter((_newest(each, until_ms) for each in tiles), np.int64, len(tiles))
                np.maximum(times, newest[which], out=times)
        columns: dict[str, Floats] = {}
        for view, (_, which), tiles in zip(views, places, held, strict=True):
            values = _merged(view, which, tiles, times)
            columns |= {f"{view.name}__{each.name}": values[:, i] for i, each in enumerate(view.features)}
        return Latest(times >= 0, times, columns)

    def _tiles(self, view: str, blob: bytes) -> Tiles:
        tiles = decode(unwrap_bytes(blob))
        return tiles if tiles.names else align(self._plan.views[view], tiles)

    def _view(self, name: str, features: tuple[str, ...]) -> ViewPlan:
        found = self._reduced.get((name, features))
        if found is None:
            found = self._reduced[name, features] = reduced(self._plan.views[name], features)
        return found


def _distinct(columns: Sequence[Sequence[str]]) -> tuple[list[tuple[str, ...]], Longs]:
    """Return the distinct keys, and which of them each row has."""
    places: dict[tuple[str, ...], int] = {}
    which = [places.setdefault(key, len(places)) for key in zip(*columns, strict=True)]
    return list(places), np.array(which, np.int64)


def _newest(tiles: Tiles | None, until_ms: int) -> int:
    if tiles is None:
        return -1
    times = tiles.max_event_time
    return int(times.max(initial=-1, where=times <= until_ms))


def _merged(view: ViewPlan, which: Longs, tiles: Sequence[Tiles | None], times: Longs) -> Floats:
    """Return a view's features, [rows, features]. What is merged is the same all through a hop, so a dealer's
    row is made once for all its categories.
    """
    hops = np.where(times < 0, -1, times // view.hop_ms)
    asked, at = np.unique(np.stack([which, hops], 1), axis=0, return_inverse=True)
    found = np.full((len(asked), len(view.features)), np.nan)
    held = [None if hop < 0 else tiles[entity] for entity, hop in asked.tolist()]
    rows = [row for row, each in enumerate(held) if each is not None]
    some = [each for each in held if each is not None]
    found[rows] = merge_many(view, some, asked[rows, 1] * view.hop_ms)
    return found[at.ravel()]
