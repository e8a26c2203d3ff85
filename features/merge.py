"""Merge an entity's tiles to feature values at a moment: the one function behind every read.

A window [S, T) ends with the finest hop that holds `now`; S is T less the window, rounded down to the window's
tail grain, so that the oldest tile counts whole. Inside, each moment is covered once, by the coarsest tile that
lies in the window. `std` is of the population, from sums and sums of squares; a variance that rounding makes
negative is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.sketch import estimate
from features.tiles import Tiles, align, decode, double_fields, sketch_fields

__all__ = ["MergedRow", "Status", "merge", "window"]

_NEVER = 0xFFFFFFFF


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
    if blob is None:
        count = len(view.features)
        return MergedRow((None,) * count, (Status.UNKNOWN,) * count, end, None)
    tiles = align(view, blob if isinstance(blob, Tiles) else decode(blob))
    widths = sorted({feature.window_ms for feature in view.features})
    starts = np.array([window(view, width, now_ms)[0] for width in widths], np.int64)[:, None]
    grain = tiles.grain.astype(np.int64) * 1000
    parent = np.zeros_like(grain)
    for fine, coarse in zip(view.grains_ms, view.grains_ms[1:], strict=False):
        parent[grain == fine] = coarse
    above = np.where(parent > 0, tiles.hop // np.maximum(parent, 1) * parent, 0)
    inside = (tiles.hop >= starts) & (tiles.hop + grain <= end)
    used = inside & ~((parent > 0) & (above >= starts) & (above + parent <= end))
    n = (used * tiles.n).sum(1)
    # An event dated after the window does not make the entity fresh: its clock was wrong, or `now` is past.
    times = tiles.max_event_time[(tiles.hop < end) & (tiles.max_event_time < end)]
    latest = int(times.max()) if len(times) else None
    stale = latest is None or now_ms - latest > view.ttl_ms
    doubles = dict(zip(double_fields(view), tiles.doubles, strict=True))
    sketches = dict(zip(sketch_fields(view), tiles.sketches, strict=True))
    columns: dict[tuple[str, str], list[float | int | None]] = {}

    def total(name: str) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.where(used, doubles[name], 0.0).sum(1)
        return sums

    def column(name: str, function: str) -> list[float | int | None]:
        match function:
            case "count":
                return [int(each) for each in n]
            case "sum":
                return [_number(each) for each in total(f"{name}_sum")]
            case "approx_count_distinct":
                ends, coupons = sketches[f"{name}_distinct"]
                owner = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
                order = np.argsort(coupons, kind="stable")
                owner, coupons = owner[order], coupons[order]
                if len(coupons) and coupons[-1] == _NEVER:
                    return [
                        None if (some := coupons[row[owner]])[-1:] == _NEVER else estimate(some, precision)
                        for row in used
                    ]
                return [estimate(coupons[row[owner]], precision) for row in used]
            case "mean":
                out = total(f"{name}_sum") / np.maximum(n, 1)
            case "std":
                mean = total(f"{name}_sum") / np.maximum(n, 1)
                out = np.sqrt(np.maximum(total(f"{name}_sumsq") / np.maximum(n, 1) - mean * mean, 0.0))
            case "min":
                out = np.minimum.reduce(np.where(used, doubles[f"{name}_min"], np.inf), 1, initial=np.inf)
            case "max":
                out = np.maximum.reduce(np.where(used, doubles[f"{name}_max"], -np.inf), 1, initial=-np.inf)
            case _:
                if not len(tiles.hop):
                    return [None] * len(widths)
                # argmax takes a NaN first: a tile that may hold the last value and cannot say makes it unknown.
                moments = np.where(used, doubles[f"{name}_last_time"], -1.0)
                out = doubles[f"{name}_last"][moments.argmax(1)]
        return [_number(each) if some else None for each, some in zip(out, n, strict=True)]

    values, statuses = [], []
    for feature in view.features:
        key = (feature.column, feature.function)
        if key not in columns:
            columns[key] = column(*key)
        at = widths.index(feature.window_ms)
        value = columns[key][at]
        values.append(value)
        never = value is None and n[at]
        statuses.append(
            Status.UNKNOWN if never else Status.STALE if stale else Status.PRESENT if n[at] else Status.EMPTY
        )
    until = end if stale or latest is None else min(end, latest + view.ttl_ms + 1)
    return MergedRow(tuple(values), tuple(statuses), until, latest)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
