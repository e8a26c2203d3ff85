"""The features of order lines, at tens of thousands of lines a second.

A line is seen with the features of a moment before it, as in training. That moment is the same for all lines of
a key in one stretch of event time (`bucket_ms`), so one read and one merge serve all of them. The stretches of
different keys begin at different times, spread by a hash of the key: else every key would be read again at once
at each full hour. Features end with the last hop that is over when the stretch begins. So a line never is among
the features that it is judged by, however far ahead the store is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.keys import entity_key, field, unwrap_bytes
from features.merge import reduced
from features.merge_many import merge_many
from features.plan import Plan, ViewPlan
from features.tiles import Tiles, align, decode

__all__ = ["LineFeatures", "moments"]

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
_MARGIN_MS = 60_000  # a stretch begins this much later: by then the store holds what was before it
_NEVER = np.iinfo(np.int64).min


def moments(view: ViewPlan, key: Sequence[str], times: Longs, bucket_ms: int) -> Longs:
    """Return the moments as of which lines of a key at `times` are seen: whose features they are judged by."""
    return np.asarray(_last_hop(view, _begin(times, _phase(key, bucket_ms), bucket_ms)))


def _phase(key: Sequence[str], bucket_ms: int) -> int:
    """When the stretches of a key begin."""
    return xxh3_64_intdigest("\0".join(key).encode()) % bucket_ms


def _begin(times: Longs, phase: Any, bucket_ms: int) -> Longs:
    begins: Longs = (times - _MARGIN_MS - phase) // bucket_ms * bucket_ms + phase
    return begins


def _last_hop(view: ViewPlan, begin: Any) -> Any:
    return begin // view.hop_ms * view.hop_ms - 1


class LineFeatures:
    """Reads features of order lines with a `redis.Redis` whose answers are bytes. Redis errors pass through.

    Args:
        plan: the feature plan.
        wanted: the features of each view.
        bucket_ms: how long a key's features serve, event time.
        most: keys held of a view; when there are more, all are read anew.
    """

    def __init__(
        self, redis: Any, plan: Plan, wanted: Mapping[str, Sequence[str]], bucket_ms: int, most: int = 500_000
    ) -> None:
        self._views = [
            _View(redis, plan.project, plan.views[view], names, bucket_ms, most)
            for view, names in wanted.items()
        ]

    @property
    def merged(self) -> int:
        """How many rows were read and merged so far."""
        return sum(view.merged for view in self._views)

    def of(self, lines: pl.DataFrame, times: Longs) -> dict[str, Floats]:
        """Return `view__feature` for each line, NaN where there is none. Raises CorruptBlobError.

        `lines` has the keys of all views, `times` the event time of each, ms.
        """
        found: dict[str, Floats] = {}
        for view in self._views:
            found |= view.of(lines, times)
        return found


@dataclass
class _Held:
    """Rows by place: the begin of the stretch that each is for, when the key's stretches begin, its values."""

    begin: Longs
    phase: Longs
    values: Floats

    @classmethod
    def empty(cls, rows: int, width: int) -> _Held:
        return cls(np.full(rows, _NEVER), np.zeros(rows, np.int64), np.full((rows, width), np.nan))

    def grown(self) -> _Held:
        more = _Held.empty(len(self.begin), self.values.shape[1])
        return _Held(
            np.concatenate([self.begin, more.begin]), np.concatenate([self.phase, more.phase]),
            np.concatenate([self.values, more.values]),
        )  # fmt: skip


class _View:
    def __init__(
        self, redis: Any, project: str, plan: ViewPlan, names: Sequence[str], bucket_ms: int, most: int
    ) -> None:
        self._redis, self._project, self._whole, self._plan = redis, project, plan, reduced(plan, names)
        self._columns = [f"{plan.name}__{each.name}" for each in self._plan.features]
        self._bucket, self._most = bucket_ms, most
        self._field = field(plan.name, "tiles")
        self.merged = 0
        self._forget()

    def _forget(self) -> None:
        self._places: dict[Any, int] = {}
        self._held = _Held.empty(1_024, len(self._columns))

    def of(self, lines: pl.DataFrame, times: Longs) -> dict[str, Floats]:
        if len(self._places) > self._most:
            self._forget()
        keys, which = distinct(lines, self._plan.entity)
        places = self._place(keys)
        place = places[which]
        held = self._held
        begin = _begin(times, held.phase[place], self._bucket)
        rows = held.values[place]
        missing = np.flatnonzero(held.begin[place] != begin)
        if len(missing):
            asked = np.stack([which[missing], begin[missing]], 1)
            unique, at = np.unique(asked, axis=0, return_inverse=True)
            fresh = self._read([keys[each] for each in unique[:, 0]], unique[:, 1])
            rows[missing] = fresh[at.ravel()]
            where = places[unique[:, 0]]
            newer = unique[:, 1] > held.begin[where]  # ascending: the newest of a key is written last
            held.begin[where[newer]], held.values[where[newer]] = unique[newer, 1], fresh[newer]
        return dict(zip(self._columns, rows.T, strict=True))

    def _place(self, keys: Sequence[Any]) -> Longs:
        known = self._places
        found = np.fromiter((known.get(key, -1) for key in keys), np.int64, len(keys))
        for at in np.flatnonzero(found < 0).tolist():
            place = known[keys[at]] = len(known)
            if place >= len(self._held.begin):
                self._held = self._held.grown()
            found[at] = place
            self._held.phase[place] = _phase(keys[at], self._bucket)
        return found

    def _read(self, keys: Sequence[tuple[str, ...]], begins: Longs) -> Floats:
        """Read and merge the rows of some keys, each as of the last hop before its moment."""
        plan, different = self._plan, dict.fromkeys(keys)
        pipeline = self._redis.pipeline(transaction=False)
        for key in different:
            entity = dict(zip(plan.entity, key, strict=True))
            pipeline.hget(entity_key(plan, entity, self._project), self._field)
        blobs = zip(different, pipeline.execute(), strict=True)
        tiles = {key: self._tiles(blob) for key, blob in blobs if blob}
        moments: Longs = _last_hop(plan, begins)
        # Whom nobody knew at that moment has no features then, as in training: not none of anything.
        found = [
            (row, held)
            for row, (key, moment) in enumerate(zip(keys, moments.tolist(), strict=True))
            if (held := tiles.get(key)) is not None and len(held.hop) and held.hop[0] <= moment
        ]
        out = np.full((len(keys), len(self._columns)), np.nan)
        rows = [row for row, _ in found]
        out[rows] = merge_many(plan, [held for _, held in found], moments[rows])
        self.merged += len(keys)
        return out

    def _tiles(self, blob: bytes) -> Tiles:
        tiles = decode(unwrap_bytes(blob))
        return tiles if tiles.names else align(self._whole, tiles)


def distinct(lines: pl.DataFrame, names: Sequence[str]) -> tuple[list[tuple[str, ...]], Longs]:
    """Return the distinct keys, and which of them each line has."""
    keys = lines.select(names)
    unique = keys.unique(maintain_order=True)
    numbered = unique.with_columns(pl.int_range(pl.len()).alias("_number"))
    which = keys.join(numbered, on=list(names), how="left", maintain_order="left")["_number"].to_numpy()
    return unique.rows(), which
