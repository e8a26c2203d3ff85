"""Features as they are read against the same windows over the events, and what stands beside the tiles in a
row.

The windows are computed from events with one group-by a window, without tiles: only where a window begins and
ends follows from the plan. The other side is the merge that every reader uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.merge import merge
from features.plan import ViewPlan
from streams.verify.findings import Finding, moment
from streams.verify.online import OnlineRows

__all__ = ["compare_rows", "compare_values"]

_RELATIVE, _ABSOLUTE = 1e-9, 1e-6
_SKEW_MS = 60_000
_PAUSE_ROWS = 200


def compare_rows(
    view: ViewPlan, events: pl.DataFrame, online: OnlineRows, partly: NDArray[np.bool_]
) -> Iterator[tuple[Finding, int]]:
    """Name rows that the log knows nothing of, cannot be read, lack a field, or carry a wrong time.

    Of `partly` rows the topic has let events go.
    """
    known = events.filter(pl.col("_row").is_not_null())
    reach, newest = online.reach(), online.newest()
    row = known["_row"].to_numpy()
    inside = known["_offset"].to_numpy() <= reach[row, known["_partition"].to_numpy()]
    produced = np.zeros(len(online.rows), np.int64)
    np.maximum.at(produced, row[inside], known["_timestamp"].to_numpy()[inside])
    heard = np.zeros(len(online.rows), bool)
    heard[row] = True
    for number, each in enumerate(online.rows):

        def found(kind: Any, feature: str, expected: Any, got: Any, of: Any = each) -> Finding:
            return Finding(kind, "online", view.name, of.entity, feature, "", expected, got)

        if not heard[number]:
            if partly[number]:
                continue
            yield found("extra-row", "tiles", None, "a row"), number
            continue
        if each.problem is not None:
            yield found("unreadable-row", "tiles", "tiles", each.problem), number
        elif each.value is None:
            yield found("missing-row", "tiles", "tiles", None), number
        if each.stamp_ms is None:
            yield found("missing-field", f"_ts:{view.name}", int(newest[number]), None), number
        elif each.tiles is not None:
            # A row of events dated ahead of the clock has the clock's time.
            ahead = newest[number] + _SKEW_MS > produced[number]
            if each.stamp_ms > newest[number] or (each.stamp_ms < newest[number] and not ahead):
                yield found("time", f"_ts:{view.name}", int(newest[number]), each.stamp_ms), number
        if each.version is None:
            yield found("missing-field", f"_version:{view.name}", "a version", None), number


def compare_values(
    view: ViewPlan,
    events: pl.DataFrame,
    online: OnlineRows,
    at_ms: int,
    skip: NDArray[np.bool_],
    precision: int,
    pause: Callable[[], None] = lambda: None,
) -> tuple[int, list[tuple[Finding, int]]]:
    """Compare every feature of every row but `skip`; return how many values, and what differs with its row.

    A row is read at `at_ms`, or at its own time where that is later: its tiles are kept for then.
    """
    moments = np.maximum(online.stamps(), at_ms)
    reach = online.reach()
    known = events.filter(pl.col("_row").is_not_null())
    row = known["_row"].to_numpy()
    inside = known["_offset"].to_numpy() <= reach[row, known["_partition"].to_numpy()]
    known = known.filter(pl.Series(inside & ~skip[row])).sort("event_time", "_partition", "_offset")
    expected = _expected(view, known, moments)
    found: list[tuple[Finding, int]] = []
    values = 0
    for number, each in enumerate(online.rows):
        if each.tiles is None or skip[number]:
            continue
        if number % _PAUSE_ROWS == 0:
            pause()
        read = merge(view, each.tiles, int(moments[number]), precision).values
        for feature, online_value in zip(view.features, read, strict=True):
            values += 1
            empty = 0 if feature.function in ("count", "sum", "approx_count_distinct") else None
            wanted = expected[feature.name].get(number, empty)
            if not _equal(feature.function, online_value, wanted, precision):
                when, position = f"at {moment(int(moments[number]))}", _reached(view, reach[number])
                finding = Finding(
                    "value",
                    "online",
                    view.name,
                    each.entity,
                    feature.name,
                    when,
                    wanted,
                    online_value,
                    position,
                )
                found.append((finding, number))
    return values, found


def _expected(
    view: ViewPlan, events: pl.DataFrame, moments: NDArray[np.int64]
) -> dict[str, dict[int, float | int | None]]:
    """Return each feature's value by row, of the rows that have events in its window."""
    found: dict[str, dict[int, float | int | None]] = {}
    row, time = events["_row"].to_numpy(), events["event_time"].to_numpy()
    for width in sorted({feature.window_ms for feature in view.features}):
        tail = view.tail_grain_ms(width)
        end = (moments // view.hop_ms + 1) * view.hop_ms
        start = (end - width) // tail * tail
        inside = events.filter(pl.Series((time >= start[row]) & (time < end[row])))
        features = [feature for feature in view.features if feature.window_ms == width]
        grouped = inside.group_by("_row").agg(_aggregate(f.column, f.function).alias(f.name) for f in features)
        rows = grouped["_row"].to_list()
        for feature in features:
            found[feature.name] = dict(zip(rows, grouped[feature.name].to_list(), strict=True))
    return found


def _aggregate(column: str, function: str) -> pl.Expr:
    values = pl.col(column)
    match function:
        case "count":
            return pl.len()
        case "sum":
            return values.sum()
        case "mean":
            return values.mean()
        case "std":
            return values.std(ddof=0)
        case "min":
            return values.min()
        case "max":
            return values.max()
        case "last":  # the events come in order of time, then of position
            return values.last()
        case "approx_count_distinct":
            return values.drop_nulls().n_unique()
    raise ValueError(f"verify knows no function {function!r}")


def _equal(function: str, online: float | int | None, wanted: float | int | None, precision: int) -> bool:
    if online is None or wanted is None:
        return online is wanted
    if function == "approx_count_distinct":
        # Five standard errors of the sketch, and never less than two: a sketch is right or wrong by far.
        return abs(online - wanted) <= max(2.0, 5 * 1.04 / math.sqrt(2**precision) * wanted)
    # A standard deviation comes from a difference of squares: half the digits are lost where it is small.
    loose = 1e-5 if function == "std" else _ABSOLUTE
    return math.isclose(online, wanted, rel_tol=_RELATIVE, abs_tol=loose)


def _reached(view: ViewPlan, reach: NDArray[np.int64]) -> str:
    return view.source_topic + " ".join(
        f"[{p}]@{offset}" for p, offset in enumerate(reach.tolist()) if offset >= 0
    )
