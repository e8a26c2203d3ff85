"""Merge an entity's tiles to feature values at a moment: the one function behind every read.

`features.windows` has the rules; `features.merge_many` merges many entities at once, to the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.sketch import estimates, united
from features.tiles import Tiles, align, decode
from features.windows import Folded, Layout, columns, layout_of, reduced, used, window

__all__ = ["MergedRow", "Status", "merge", "reduced", "window"]


class Status(IntEnum):
    """Why a value is what it is. Stale values are still given; empty counts and sums are 0, others None.

    UNKNOWN is an entity without tiles, or a window over tiles older than the aggregate (None both times).
    """

    PRESENT = 0
    EMPTY = 1
    STALE = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class MergedRow:
    """Values and statuses in the order of the view's features; valid before `valid_until_ms`."""

    values: tuple[float | int | None, ...]
    statuses: tuple[Status, ...]
    valid_until_ms: int
    event_time_ms: int | None


def merge(view: ViewPlan, blob: bytes | Tiles | None, now_ms: int, precision: int = 10) -> MergedRow:
    """Merge all windows of a view at once. `blob` None is an unknown entity. Raises CorruptBlobError."""
    end = (now_ms // view.hop_ms + 1) * view.hop_ms
    layout = layout_of(view)
    if blob is None:
        count = len(view.features)
        return MergedRow((None,) * count, (Status.UNKNOWN,) * count, end, None)
    tiles = blob if isinstance(blob, Tiles) else decode(blob)
    if tiles.names != layout.names:
        tiles = align(view, tiles)
    hop, latest_times = tiles.hop, tiles.max_event_time
    # An event dated after the window does not make the entity fresh: its clock was wrong, or `now` is past.
    times = latest_times[(hop < end) & (latest_times < end)]
    latest = int(times.max()) if len(times) else None
    stale = latest is None or now_ms - latest > view.ttl_ms
    inside = used(layout, hop, tiles, np.array([end]))
    folded = _folded(layout, tiles, inside)
    counts = folded.n.tolist()
    found = columns(layout, folded)
    if len(layout.sketched):
        found = np.concatenate([found, _distinct(layout, tiles, inside, precision)])
    merged = found.ravel()[layout.gather].tolist()
    for at in layout.whole:
        merged[at] = None if merged[at] != merged[at] else int(merged[at])
    values = tuple([None if each != each else each for each in merged])
    one = [Status.STALE if stale else Status.PRESENT if some else Status.EMPTY for some in counts]
    statuses = [one[w] for w in layout.windows]
    if None in values:
        for at, (value, w) in enumerate(zip(values, layout.windows, strict=True)):
            if value is None and counts[w]:
                statuses[at] = Status.UNKNOWN
    until = end if stale or latest is None else min(end, latest + view.ttl_ms + 1)
    return MergedRow(values, tuple(statuses), until, latest)


def _folded(layout: Layout, tiles: Tiles, inside: NDArray[np.bool_]) -> Folded:
    doubles = tiles.doubles

    def picked(rows: NDArray[np.intp], other: float) -> NDArray[np.float64]:
        return np.where(inside, doubles[rows][:, None, :], other)

    lowest = picked(layout.lowest, np.inf).min(2, initial=np.inf) if len(layout.lowest) else None
    highest = picked(layout.highest, -np.inf).max(2, initial=-np.inf) if len(layout.highest) else None
    last = None
    if len(layout.last):
        last = np.full((len(layout.last), len(inside)), np.nan)
        if doubles.shape[1]:
            # argmax takes a NaN first: a tile that may hold the last value and cannot say makes it unknown.
            at = picked(layout.moments, -1.0).argmax(2)
            last = np.take_along_axis(doubles[layout.last], at, 1)
    return Folded(np.where(inside, tiles.n, 0).sum(1), picked(layout.added, 0.0).sum(2), lowest, highest, last)


def _distinct(layout: Layout, tiles: Tiles, inside: NDArray[np.bool_], precision: int) -> NDArray[np.float64]:
    """Distinct counts over the windows that ask for them; NaN where they are not known."""
    asked = inside[layout.sketched]
    unions = [united(ends, coupons, asked, precision) for ends, coupons in tiles.sketches]
    counts = estimates(np.concatenate([registers for registers, _ in unions]), precision)
    unknown = np.concatenate([unknown for _, unknown in unions])
    found = np.zeros((len(unions), len(inside)))
    found[:, layout.sketched] = np.where(unknown, np.nan, counts).reshape(len(unions), -1)
    return found
