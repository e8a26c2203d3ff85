"""What a merge of tiles needs of a view's plan, and the rules that it follows.

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
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.tiles import double_fields, sketch_fields

__all__ = ["Folded", "Layout", "columns", "layout_of", "reduced", "used", "window"]

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
_LONG_AGO = np.iinfo(np.int64).min
_PARTIALS = {"sum": {"sum"}, "mean": {"sum"}, "std": {"sum", "sumsq"}}


class Columns(Protocol):
    """The columns of some tiles that tell where they lie and how many events they hold."""

    @property
    def hop(self) -> Longs:
        """Where each begins, ms since the epoch."""

    @property
    def n(self) -> Longs:
        """Events in each."""

    @property
    def grain(self) -> NDArray[np.uint32]:
        """How long each is, s."""


@dataclass(frozen=True)
class Folded:
    """Partials of tiles over windows: the last axes are windows, and entities where there are several.

    What is asked of no column is None; extremes and last values mean nothing where `n` is 0.
    """

    n: Longs
    totals: Floats
    lowest: Floats | None
    highest: Floats | None
    last: Floats | None


def window(view: ViewPlan, window_ms: int, now_ms: int) -> tuple[int, int]:
    """Return [S, T) of a window at `now_ms`."""
    end = (now_ms // view.hop_ms + 1) * view.hop_ms
    grain = view.tail_grain_ms(window_ms)
    return (end - window_ms) // grain * grain, end


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
class Layout:
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
_LAYOUTS: dict[int, Layout] = {}


def layout_of(view: ViewPlan) -> Layout:
    """Return what the merge of a view needs of its plan; it is laid out once."""
    # By identity: to hash a plan costs as much as a merge. The layout holds the view, so no other gets its id.
    found = _LAYOUTS.get(id(view))
    if found is None:
        if len(_LAYOUTS) > 100:
            _LAYOUTS.clear()
        found = _LAYOUTS[id(view)] = _lay_out(view)
    return found


def _lay_out(view: ViewPlan) -> Layout:
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
    return Layout(
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


def used(layout: Layout, place: Longs, tiles: Columns, end: Longs) -> NDArray[np.bool_]:
    """Return which tiles make up which window: those inside it that no coarser tile inside it covers.

    `place` is each tile's hop, moved by as much as keeps entities apart where there are several: ascending.
    `end` is where the windows end, for each tile or for all.
    """
    hop, n = tiles.hop, tiles.n
    grain = tiles.grain.astype(np.int64) * 1000
    starts = (end - layout.widths[:, None]) // layout.tails[:, None] * layout.tails[:, None]
    inside = np.where(hop + grain <= end, hop, _LONG_AGO)
    covering = np.full(len(hop), _LONG_AGO)  # start of the coarser tile, where that ends in time
    events, top = n, np.ones(len(hop), np.bool_)  # `top`: lies in no tile looked at so far
    for coarse in layout.coarser:
        wholes = np.flatnonzero(grain == coarse)
        if not len(wholes):
            continue
        into = hop % coarse
        above = hop - into
        at = np.minimum(np.searchsorted(place[wholes], place - into), len(wholes) - 1)
        part = (grain < coarse) & (place[wholes][at] == place - into)
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
    found: NDArray[np.bool_] = (inside >= starts) & (covering < starts)
    return found


def columns(layout: Layout, folded: Folded) -> Floats:
    """Return every column but distinct counts over every window, in the layout's order; NaN is no value."""
    n, totals = folded.n, folded.totals
    some = np.where(n > 0, n, np.nan)  # what divides by it is NaN where the window is empty
    parts: list[NDArray[Any]] = [n[None], totals[layout.sums]]
    if len(layout.means):
        parts.append(totals[layout.means] / some)
    if len(layout.deviations):
        mean = totals[layout.deviations] / some
        parts.append(np.sqrt(np.maximum(totals[layout.squares] / some - mean * mean, 0.0)))
    others = (folded.lowest, folded.highest, folded.last)
    return np.concatenate([*parts, *(np.where(n > 0, found, np.nan) for found in others if found is not None)])
