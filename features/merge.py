"""Merge an entity's tiles to feature values at a moment: the one function behind every read.

A window [S, T) ends with the finest hop that holds `now`; S is T less the window, rounded down to the window's
tail grain, so that the oldest tile counts whole. Inside, each moment is covered once, by the coarsest tile that
lies in the window and holds no fewer events than its parts: a tile may come later than they do, or be behind
them. `std` is of the population, from sums and sums of squares; a variance that rounding makes negative is 0.

All windows and all columns of a kind are merged by one numpy call: a merge is bound by the number of calls, not
by the number of tiles. What depends on the plan alone is laid out once a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.sketch import estimates, united
from features.tiles import Tiles, align, decode, double_fields, sketch_fields

__all__ = ["MergedRow", "Status", "merge", "reduced", "window"]

_LONG_AGO = np.iinfo(np.int64).min
_PARTIALS = {"sum": {"sum"}, "mean": {"sum"}, "std": {"sum", "sumsq"}}


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


def window(view: ViewPlan, window_ms: int, now_ms: int) -> tuple[int, int]:
    """Return [S, T) of a window at `now_ms`."""
    end = (now_ms // view.hop_ms + 1) * view.hop_ms
    grain = view.tail_grain_ms(window_ms)
    return (end - window_ms) // grain * grain, end


def merge(view: ViewPlan, blob: bytes | Tiles | None, now_ms: int, precision: int = 10) -> MergedRow:
    """Merge all windows of a view at once. `blob` None is an unknown entity. Raises CorruptBlobError."""
    end = (now_ms // view.hop_ms + 1) * view.hop_ms
    layout = _layout(view)
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
    used = _used(layout, tiles, end)
    n = np.where(used, tiles.n, 0).sum(1)
    counts = n.tolist()
    merged = _columns(layout, tiles, used, n, precision).ravel()[layout.gather].tolist()
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


def reduced(view: ViewPlan, names: Sequence[str]) -> ViewPlan:
    """Return a view with these features alone, in this order, and the partials that they need.

    Distinct counts of a dealer cost a hundred times what its means do, so nobody merges them who needs none.
    """
    by_name = {each.name: each for each in view.features}
    features = tuple(by_name[name] for name in names)
    needed: dict[str, set[str]] = {}
    for each in features:
        if each.function == "approx_count_distinct":
            needed.setdefault(each.column, set()).add("distinct")
        elif each.function != "count":
            needed.setdefault(each.column, set()).update(_PARTIALS.get(each.function, {each.function}))
    columns = [
        replace(each, partials=tuple(one for one in each.partials if one in needed[each.column]))
        for each in view.columns
        if each.column in needed
    ]
    return replace(view, features=features, columns=tuple(columns))


@dataclass(frozen=True)
class _Layout:
    """What the merge of a view needs of its plan. Rows of the merged columns: n, sums, extremes, and so on."""

    view: ViewPlan
    names: tuple[str, ...]
    widths: NDArray[np.int64]
    tails: NDArray[np.int64]
    coarser: tuple[int, ...]
    """Every grain but the finest, ms."""
    added: NDArray[np.intp]
    """Rows of a tile's doubles that are added up, the extremes, and of last values with their moments."""
    lowest: NDArray[np.intp]
    highest: NDArray[np.intp]
    last: NDArray[np.intp]
    moments: NDArray[np.intp]
    sums: NDArray[np.intp]
    """Where among what is added up the sums lie, and those of means and of deviations with their squares."""
    means: NDArray[np.intp]
    deviations: NDArray[np.intp]
    squares: NDArray[np.intp]
    gather: NDArray[np.intp]
    """Where each feature lies in the merged columns."""
    windows: tuple[int, ...]
    """Which width each feature has."""
    whole: tuple[int, ...]
    """Features that are integers."""
    sketched: NDArray[np.intp]
    """The windows of which distinct values are asked."""


_KINDS = ("sum", "mean", "std", "min", "max", "last")
_LAYOUTS: dict[int, _Layout] = {}


def _layout(view: ViewPlan) -> _Layout:
    # By identity: to hash a plan costs as much as a merge. The layout holds the view, so no other gets its id.
    found = _LAYOUTS.get(id(view))
    if found is None:
        if len(_LAYOUTS) > 100:
            _LAYOUTS.clear()
        found = _LAYOUTS[id(view)] = _lay_out(view)
    return found


def _lay_out(view: ViewPlan) -> _Layout:
    doubles, sketches = double_fields(view), sketch_fields(view)
    widths = sorted({feature.window_ms for feature in view.features})
    asked = {kind: [f.column for f in view.features if f.function == kind] for kind in _KINDS}
    columns = {kind: list(dict.fromkeys(some)) for kind, some in asked.items()}

    def rows(kind: str, partial: str, among: list[str] = doubles) -> NDArray[np.intp]:
        return np.array([among.index(f"{column}_{partial}") for column in columns[kind]], np.intp)

    added = [name for name in doubles if name.endswith(("_sum", "_sumsq"))]
    order = [("count", "")] + [(kind, column) for kind in _KINDS for column in columns[kind]]
    order += [("approx_count_distinct", name.removesuffix("_distinct")) for name in sketches]
    place = {key: row * len(widths) for row, key in enumerate(order)}
    windows = tuple(widths.index(feature.window_ms) for feature in view.features)
    distinct = [w for w, f in zip(windows, view.features, strict=True) if f.function == "approx_count_distinct"]
    return _Layout(
        view=view,
        names=(*doubles, *sketches),
        widths=np.array(widths, np.int64),
        tails=np.array([view.tail_grain_ms(width) for width in widths], np.int64),
        coarser=view.grains_ms[1:],
        added=np.array([doubles.index(name) for name in added], np.intp),
        lowest=rows("min", "min"),
        highest=rows("max", "max"),
        last=rows("last", "last"),
        moments=rows("last", "last_time"),
        sums=rows("sum", "sum", added),
        means=rows("mean", "sum", added),
        deviations=rows("std", "sum", added),
        squares=rows("std", "sumsq", added),
        gather=np.array(
            [
                place[f.function, "" if f.function == "count" else f.column] + w
                for f, w in zip(view.features, windows, strict=True)
            ],
            np.intp,
        ),
        windows=windows,
        whole=tuple(
            at for at, f in enumerate(view.features) if f.function in ("count", "approx_count_distinct")
        ),
        sketched=np.array(sorted(set(distinct)), np.intp),
    )


def _used(layout: _Layout, tiles: Tiles, end: int) -> NDArray[np.bool_]:
    """Which tiles make up which window: those inside it that no coarser tile inside it covers."""
    hop, n = tiles.hop, tiles.n
    grain = tiles.grain.astype(np.int64) * 1000
    starts = ((end - layout.widths) // layout.tails * layout.tails)[:, None]
    inside = np.where(hop + grain <= end, hop, _LONG_AGO)
    covering = np.full(len(hop), _LONG_AGO)  # start of the coarser tile, where that ends in time
    events, top = n, np.ones(len(hop), np.bool_)  # `top`: lies in no tile looked at so far
    for coarse in layout.coarser:
        wholes = np.flatnonzero(grain == coarse)
        if not len(wholes):
            continue
        above = hop - hop % coarse
        at = np.minimum(np.searchsorted(hop[wholes], above), len(wholes) - 1)
        part = (grain < coarse) & (hop[wholes][at] == above)
        roots = part & top
        in_parts = np.bincount(at[roots], events[roots], len(wholes)).astype(np.int64)
        top &= ~part
        behind = n[wholes] < in_parts
        if behind.any():
            inside[wholes[behind]] = _LONG_AGO
            part &= ~behind[at]
            events = events.copy()
            events[wholes] = np.maximum(n[wholes], in_parts)
        np.maximum(covering, above, out=covering, where=part & (above + coarse <= end))
    used: NDArray[np.bool_] = (inside >= starts) & (covering < starts)
    return used


def _columns(
    layout: _Layout, tiles: Tiles, used: NDArray[np.bool_], n: NDArray[np.int64], precision: int
) -> NDArray[np.float64]:
    """Every column over every window, in the order of the layout; NaN where there is no value."""
    doubles = tiles.doubles
    totals = np.where(used, doubles[layout.added][:, None, :], 0.0).sum(2)
    some = np.where(n > 0, n, np.nan)  # what divides by it is NaN where the window is empty
    parts: list[NDArray[Any]] = [n[None, :], totals[layout.sums]]
    if len(layout.means):
        parts.append(totals[layout.means] / some)
    if len(layout.deviations):
        mean = totals[layout.deviations] / some
        parts.append(np.sqrt(np.maximum(totals[layout.squares] / some - mean * mean, 0.0)))
    if len(layout.lowest):
        picked = np.where(used, doubles[layout.lowest][:, None, :], np.inf)
        parts.append(np.where(n > 0, picked.min(2, initial=np.inf), np.nan))
    if len(layout.highest):
        picked = np.where(used, doubles[layout.highest][:, None, :], -np.inf)
        parts.append(np.where(n > 0, picked.max(2, initial=-np.inf), np.nan))
    if len(layout.last):
        lasts = np.full((len(layout.last), len(n)), np.nan)
        if doubles.shape[1]:
            # argmax takes a NaN first: a tile that may hold the last value and cannot say makes it unknown.
            at = np.where(used, doubles[layout.moments][:, None, :], -1.0).argmax(2)
            lasts = np.where(n > 0, np.take_along_axis(doubles[layout.last], at, 1), np.nan)
        parts.append(lasts)
    if len(layout.sketched):
        asked = used[layout.sketched]
        unions = [united(ends, coupons, asked, precision) for ends, coupons in tiles.sketches]
        counts = estimates(np.concatenate([registers for registers, _ in unions]), precision)
        unknown = np.concatenate([unknown for _, unknown in unions])
        found = np.zeros((len(unions), len(n)))
        found[:, layout.sketched] = np.where(unknown, np.nan, counts).reshape(len(unions), -1)
        parts.append(found)
    return np.concatenate(parts)
