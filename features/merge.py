"""Merge an entity's tiles to feature values at a moment: the one function behind every read.

A window [S, T) ends with the finest hop that holds `now`; S is T less the window, rounded down to the window's
tail grain, so that the oldest tile counts whole. Inside, each moment is covered once, by the coarsest tile that
lies in the window. `std` is of the population, from sums and sums of squares; a variance that rounding makes
negative is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.sketch import estimate
from features.tiles import Tiles, decode, double_fields, sketch_fields

__all__ = ["MergedRow", "Status", "merge", "window"]


class Status(IntEnum):
    """Why a value is what it is. Stale values are still given; empty counts and sums are 0, others None."""

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
    tiles = blob if isinstance(blob, Tiles) else decode(blob)
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
    latest = int(tiles.max_event_time.max()) if len(tiles.hop) else None
    stale = latest is None or now_ms - latest > view.ttl_ms
    doubles = dict(zip(double_fields(view), tiles.doubles, strict=True)) if len(tiles.hop) else {}
    sketches = dict(zip(sketch_fields(view), tiles.sketches, strict=True)) if len(tiles.hop) else {}
    columns: dict[tuple[str, str], list[float | int | None]] = {}

    def total(name: str) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.where(used & ~np.isnan(doubles[name]), doubles[name], 0.0).sum(1)
        return sums

    def column(name: str, function: str) -> list[float | int | None]:
        if not doubles and not sketches and function != "count":
            return [0 if function in ("sum", "approx_count_distinct") else None] * len(widths)
        match function:
            case "count":
                return [int(each) for each in n]
            case "sum":
                return [float(each) for each in total(f"{name}_sum")]
            case "approx_count_distinct":
                ends, coupons = sketches[f"{name}_distinct"]
                owner = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
                order = np.argsort(coupons, kind="stable")
                owner, coupons = owner[order], coupons[order]
                return [estimate(coupons[row[owner]], precision) for row in used]
            case "mean":
                out = total(f"{name}_sum") / np.maximum(n, 1)
            case "std":
                mean = total(f"{name}_sum") / np.maximum(n, 1)
                out = np.sqrt(np.maximum(total(f"{name}_sumsq") / np.maximum(n, 1) - mean * mean, 0.0))
            case "min":
                out = np.fmin.reduce(np.where(used, doubles[f"{name}_min"], np.inf), 1)
            case "max":
                out = np.fmax.reduce(np.where(used, doubles[f"{name}_max"], -np.inf), 1)
            case _:
                times = np.where(used, np.nan_to_num(doubles[f"{name}_last_time"], nan=-1.0), -1.0)
                out = doubles[f"{name}_last"][times.argmax(1)]
        return [float(each) if some else None for each, some in zip(out, n, strict=True)]

    values, statuses = [], []
    for feature in view.features:
        key = (feature.column, feature.function)
        if key not in columns:
            columns[key] = column(*key)
        at = widths.index(feature.window_ms)
        values.append(columns[key][at])
        statuses.append(Status.STALE if stale else Status.PRESENT if n[at] else Status.EMPTY)
    until = end if stale or latest is None else min(end, latest + view.ttl_ms + 1)
    return MergedRow(tuple(values), tuple(statuses), until, latest)
