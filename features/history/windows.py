"""The windows of one view at many moments, over the events of many entities.

A row sees the events of its entity that happened at or before its time and, where `known_at` says when each
became known, that were known by then. In a window these are one run of the events sorted by time, but for
those that came out of order: few in a stream, all of them after a bulk import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.history.events import COMBINE, Events, InOrder, Inside, OutOfOrder, in_order
from features.merge import Status, window
from features.plan import ViewPlan
from features.sketch import estimates

__all__ = ["Answers", "Windows"]

Longs = NDArray[np.int64]
_ROWS = 4_096  # answered at once: a megabyte of registers for each 1,024
_PAIRS = 1 << 21  # most (row, event) pairs looked at one by one at once


@dataclass
class Answers:
    """By feature: values and where there is none. By window: why (`features.merge.Status`)."""

    values: dict[str, NDArray[np.generic]]
    missing: dict[str, NDArray[np.bool_]]
    statuses: dict[int, NDArray[np.uint8]]


class Windows:
    """Every window of a view over some events; ask for many rows at once."""

    def __init__(self, view: ViewPlan, events: Events, precision: int) -> None:
        self._view, self._events, self._precision = view, events, precision
        orderly = in_order(events)
        number = np.arange(len(events))
        self._most = InOrder(events.take(number[orderly]), number[orderly], precision)
        loose = number[~orderly]
        self._rest = OutOfOrder(events.take(loose), loose, precision) if len(loose) else None

    def answer(self, entity: Longs, time: Longs) -> Iterator[tuple[slice, Answers]]:
        """Yield the answers of rows, some at a time. An entity beyond those of the events is unknown."""
        heavy = np.cumsum(self._rest.count(entity)) if self._rest else np.zeros(len(entity), np.int64)
        start = 0
        while start < len(entity):
            most = (heavy[start - 1] if start else 0) + _PAIRS
            stop = min(start + _ROWS, max(int(np.searchsorted(heavy, most, "right")), start + 1), len(entity))
            yield slice(start, stop), self._answer(entity[start:stop], time[start:stop])
            start = stop

    def _answer(self, entity: Longs, time: Longs) -> Answers:
        view, out = self._view, Answers({}, {}, {})
        widths = sorted({feature.window_ms for feature in view.features})
        starts = {width: _starts(view, width, time) for width in widths}
        sights = [self._most.look(entity, time)]
        if self._rest:
            oldest = np.minimum(np.minimum.reduce(list(starts.values())), time - view.ttl_ms)
            sights.append(self._rest.look(entity, time, oldest))
        known = np.logical_or.reduce([sight.known for sight in sights])
        stale = time - np.maximum.reduce([sight.latest for sight in sights]) > view.ttl_ms
        for width in widths:
            parts = [sight.since(starts[width]) for sight in sights]
            n = np.add.reduce([part.n for part in parts])
            status = np.where(stale, Status.STALE, np.where(n > 0, Status.PRESENT, Status.EMPTY))
            status = np.where(known, status, Status.UNKNOWN).astype(np.uint8)
            out.statuses[width] = status
            fold = _folder(parts)
            for feature in (each for each in view.features if each.window_ms == width):
                out.values[feature.name] = self._value(feature.column, feature.function, n, fold)
                always = feature.function in ("count", "sum", "approx_count_distinct")
                out.missing[feature.name] = ~known if always else n == 0
        return out

    def _value(
        self, column: str, function: str, n: Longs, fold: Callable[[str, str], Any]
    ) -> NDArray[np.generic]:
        value: NDArray[np.generic]
        match function:
            case "count":
                value = n
            case "sum" | "min" | "max":
                value = fold(column, function)
            case "approx_count_distinct":
                value = estimates(fold(column, "distinct"), self._precision)
            case "last":
                last = fold(column, "last")  # -1 is no event; its value, the 0 at the end, is never shown
                value = np.append(self._events.numbers[column], 0.0)[last]
            case "mean":
                value = fold(column, "sum") / np.maximum(n, 1)
            case _:
                some = np.maximum(n, 1)
                mean = fold(column, "sum") / some
                value = np.sqrt(np.maximum(fold(column, "sumsq") / some - mean * mean, 0.0))
        return value


def _folder(parts: list[Inside]) -> Callable[[str, str], Any]:
    """Return what folds a partial aggregate over all parts of a window, each once."""
    done: dict[tuple[str, str], NDArray[np.generic]] = {}

    def fold(column: str, partial: str) -> NDArray[np.generic]:
        key = (column, partial)
        if key not in done:
            found = [part.fold(column, partial) for part in parts]
            done[key] = found[0] if len(found) == 1 else COMBINE[partial](*found)
        return done[key]

    return fold


def _starts(view: ViewPlan, width: int, time: Longs) -> Longs:
    """The start of a window at each time, as the reader's merge has it."""
    start: Longs = window(view, width, time)[0]  # type: ignore[arg-type, assignment]  # arithmetic, on arrays too
    return start
