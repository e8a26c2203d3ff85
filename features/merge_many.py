"""Merge the tiles of many entities at once: the values of `features.merge`, to the bit, for less.

The tiles of all entities lie one after another, and each entity is a segment of every array. A sum over a
segment begins with a 0 of its own: so numpy adds the rest in the order in which it adds one entity's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.merge import merge
from features.plan import ViewPlan
from features.tiles import Tiles, align, double_fields
from features.windows import Folded, Layout, columns, layout_of, reduced, used

__all__ = ["merge_many"]

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
_MOST = 20_000
"""Tiles at once: what they become still lies in the processor's cache."""
_APART = 1 << 46
"""More than any hop, ms: keeps the places of entities apart."""
_DISTINCT = "approx_count_distinct"


def merge_many(view: ViewPlan, tiles: Sequence[Tiles], times: Longs) -> Floats:
    """Return [entities, features], NaN for no value. `times` is each entity's moment, ms since the epoch.

    Distinct counts are merged one entity after another: nothing is gained by doing it together.
    """
    tiles = [each if each.names else align(view, each) for each in tiles]  # only the whole view tells those
    found = np.full((len(tiles), len(view.features)), np.nan)
    plain = [at for at, each in enumerate(view.features) if each.function != _DISTINCT]
    if plain:
        alone = _part(view, plain)
        for some in _parts(tiles):
            found[some, plain] = _merged(alone, tiles[some], times[some])
    if distinct := [at for at, each in enumerate(view.features) if each.function == _DISTINCT]:
        alone = _part(view, distinct)
        for row, (each, time_ms) in enumerate(zip(tiles, times.tolist(), strict=True)):
            values = merge(alone, each, time_ms).values
            found[row, distinct] = [np.nan if value is None else value for value in values]
    return found


_views: dict[tuple[int, int], tuple[ViewPlan, ViewPlan]] = {}


def _part(view: ViewPlan, features: Sequence[int]) -> ViewPlan:
    """Return a view with some of its features; the same object each time, as layouts are kept by it."""
    if len(features) == len(view.features):
        return view
    key = id(view), features[0]  # plain or distinct: either has its own first feature
    held = _views.get(key)
    if held is None or held[0] is not view:
        if len(_views) > 100:
            _views.clear()
        held = _views[key] = view, reduced(view, [view.features[at].name for at in features])
    return held[1]


def _parts(tiles: Sequence[Tiles]) -> Iterator[slice]:
    begin = count = 0
    for at, each in enumerate(tiles):
        count += len(each.hop)
        if count > _MOST and at > begin:
            yield slice(begin, at)
            begin, count = at, len(each.hop)
    if begin < len(tiles):
        yield slice(begin, len(tiles))


@dataclass(frozen=True)
class _Joined:
    """Tiles of several entities, one after another. `owner` says whose each tile is."""

    hop: Longs
    n: Longs
    grain: NDArray[np.uint32]
    doubles: Floats
    owner: Longs
    entities: int

    @property
    def first(self) -> Longs:
        """Where each entity's segment begins, where each has a place of its own in front."""
        counts = np.bincount(self.owner, minlength=self.entities)
        return np.cumsum(counts + 1) - counts - 1

    @property
    def place(self) -> Longs:
        """Where each tile lies in arrays of such segments."""
        found: Longs = np.arange(len(self.owner)) + self.owner + 1
        return found


def _merged(view: ViewPlan, tiles: Sequence[Tiles], times: Longs) -> Floats:
    layout = layout_of(view)
    joined = _joined(view, layout, tiles)
    end = ((times // view.hop_ms + 1) * view.hop_ms)[joined.owner]
    inside = used(layout, joined.owner * _APART + joined.hop, joined, end)
    found = columns(layout, _folded(layout, joined, inside))
    values: Floats = found.reshape(-1, len(tiles))[layout.gather].T
    return values


def _joined(view: ViewPlan, layout: Layout, tiles: Sequence[Tiles]) -> _Joined:
    """Join tiles with their doubles in the layout's order; those that an entity lacks were never computed."""
    wanted = tuple(double_fields(view))
    doubles: list[Any] = []
    orders: dict[tuple[str, ...], NDArray[np.intp] | None] = {}
    for each in tiles:
        if each.names == layout.names:
            doubles.append(each.doubles)
            continue
        if each.names not in orders:
            complete = set(wanted) <= set(each.names)
            at = [each.names.index(name) for name in wanted] if complete else []
            orders[each.names] = np.array(at, np.intp) if complete else None
        order = orders[each.names]
        doubles.append(align(view, each).doubles if order is None else each.doubles[order])
    counts = np.array([len(each.hop) for each in tiles])
    return _Joined(
        np.concatenate([each.hop for each in tiles]),
        np.concatenate([each.n for each in tiles]),
        np.concatenate([each.grain for each in tiles]),
        np.concatenate(doubles, axis=1),
        np.repeat(np.arange(len(tiles)), counts),
        len(tiles),
    )


def _folded(layout: Layout, tiles: _Joined, inside: NDArray[np.bool_]) -> Folded:
    doubles, first, place = tiles.doubles, tiles.first, tiles.place

    def segments(values: Any, own: Any) -> Any:
        """Values with a place of its own in front of each entity's, which holds `own`."""
        out = np.full((*values.shape[:-1], values.shape[-1] + tiles.entities), own, values.dtype)
        out[..., place] = values
        return out

    def picked(rows: NDArray[np.intp], other: float) -> Floats:
        return np.where(inside, doubles[rows][:, None, :], other)

    n = np.add.reduceat(segments(np.where(inside, tiles.n, 0), 0), first, axis=-1)
    totals = np.add.reduceat(segments(picked(layout.added, 0.0), 0.0), first, axis=-1)
    lowest = highest = last = None
    if len(layout.lowest):
        lowest = np.minimum.reduceat(segments(picked(layout.lowest, np.inf), np.inf), first, axis=-1)
    if len(layout.highest):
        highest = np.maximum.reduceat(segments(picked(layout.highest, -np.inf), -np.inf), first, axis=-1)
    if len(layout.last):
        moments = segments(picked(layout.moments, -1.0), -np.inf)
        newest = np.maximum.reduceat(moments, first, axis=-1)
        counts = np.diff(np.append(first, moments.shape[-1]))
        # The first of the newest, or a NaN: a tile that may hold the last value and cannot say.
        here = (moments == np.repeat(newest, counts, axis=-1)) | np.isnan(moments)
        spots = np.where(here, np.arange(moments.shape[-1]), moments.shape[-1])
        at = np.minimum.reduceat(spots, first, axis=-1)
        values = segments(doubles[layout.last], np.nan)
        last = np.take_along_axis(values, at.reshape(len(values), -1), 1).reshape(at.shape)
    return Folded(n, totals, lowest, highest, last)
