"""Events of many entities in the order in which windows are answered, and the two ways of folding them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.history.ranges import Extremes, PrefixSums, Registers

__all__ = ["COMBINE", "Events", "InOrder", "Inside", "OutOfOrder", "Sight", "in_order"]

Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]

COMBINE: Mapping[str, np.ufunc] = {
    "sum": np.add,
    "sumsq": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "last": np.maximum,
    "distinct": np.maximum,
}
"""How the partial aggregates of two sets of events become one; the partial of `last` is its event's number."""

_EMPTY = {"sum": 0.0, "sumsq": 0.0, "min": np.inf, "max": -np.inf}


@dataclass(frozen=True)
class Events:
    """Events ascending by (entity, event time, partition, offset). `entity` is dense, from 0.

    `known_at` is the later of an event's own time and, where that is asked for, its arrival. `coupons` are
    bucket << 6 | rank, -1 where the event has no value.
    """

    entity: Longs
    time: Longs
    known_at: Longs
    numbers: Mapping[str, Doubles]
    coupons: Mapping[str, Longs]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, some: Longs) -> Events:
        """Return the chosen events."""
        return Events(
            self.entity[some],
            self.time[some],
            self.known_at[some],
            {name: each[some] for name, each in self.numbers.items()},
            {name: each[some] for name, each in self.coupons.items()},
        )

    def span(self) -> tuple[int, int]:
        """Return an origin before all times and a span that holds them, for `place`."""
        if not len(self):
            return 0, 2
        origin = int(self.time.min()) - 1
        return origin, int(self.known_at.max()) - origin + 2


class Inside(Protocol):
    """The events that each row sees inside one window: how many, and their partial aggregates."""

    n: Longs

    def fold(self, column: str, partial: str) -> NDArray[np.generic]:
        """Return a partial aggregate of each row; of `last` the event's number or -1."""


class Sight(Protocol):
    """What each row sees: whether anything, the latest event time (or a very old one), and windows."""

    known: NDArray[np.bool_]
    latest: Longs

    def since(self, start: Longs) -> Inside:
        """Return what the window that begins at `start` holds."""


def in_order(events: Events) -> NDArray[np.bool_]:
    """Tell which events became known no later than everything of their entity that happened after them.

    Of these alone, what is known at a moment is a prefix of each entity's events.
    """
    origin, span = events.span()
    known = events.entity * span + (events.known_at - origin)
    return known <= np.minimum.accumulate(known[::-1])[::-1]


class _Placed:
    def __init__(self, events: Events, number: Longs, precision: int) -> None:
        self.events, self.number, self.precision = events, number, precision
        self._origin, self._span = events.span()
        self.by_time = self.place(events.entity, events.time)

    def place(self, entity: Longs, time: Longs) -> Longs:
        """One number that orders by entity, then time; times outside those of the events fall at the ends."""
        return entity * self._span + np.clip(time - self._origin, 0, self._span - 1)


class InOrder(_Placed):
    """Events whose known ones are always a prefix: a window is one run of them."""

    def __init__(self, events: Events, number: Longs, precision: int) -> None:
        super().__init__(events, number, precision)
        self.by_known = self.place(events.entity, events.known_at)
        self._tables: dict[tuple[str, str], PrefixSums | Extremes | Registers] = {}

    def look(self, entity: Longs, time: Longs) -> Sight:
        """Return what rows see."""
        return _Prefix(self, entity, time)

    def table(self, column: str, partial: str) -> PrefixSums | Extremes | Registers:
        """Return the table of one partial, built when first asked for."""
        key = (column, partial)
        if key not in self._tables:
            events = self.events
            match partial:
                case "distinct":
                    made: PrefixSums | Extremes | Registers = Registers(events.coupons[column], self.precision)
                case "min" | "max":
                    made = Extremes(events.numbers[column], COMBINE[partial], _EMPTY[partial])
                case _:
                    values = events.numbers[column]
                    made = PrefixSums(values * values if partial == "sumsq" else values)
            self._tables[key] = made
        return self._tables[key]


class _Prefix:
    def __init__(self, source: InOrder, entity: Longs, time: Longs) -> None:
        self._source, self._entity = source, entity
        self._end = np.searchsorted(source.by_known, source.place(entity, time), "right")
        first = np.searchsorted(source.by_time, entity * source._span)
        self.known = self._end > first
        padded = np.append(source.events.time, 0)
        self.latest = np.where(self.known, padded[self._end - 1], np.iinfo(np.int64).min // 2)

    def since(self, start: Longs) -> Inside:
        lo = np.searchsorted(self._source.by_time, self._source.place(self._entity, start))
        return _Run(self._source, np.minimum(lo, self._end), self._end)


class _Run:
    def __init__(self, source: InOrder, lo: Longs, hi: Longs) -> None:
        self._source, self._lo, self._hi = source, lo, hi
        self.n = hi - lo

    def fold(self, column: str, partial: str) -> NDArray[np.generic]:
        if partial == "last":
            return np.where(self.n > 0, np.append(self._source.number, -1)[self._hi - 1], -1)
        return self._source.table(column, partial).between(self._lo, self._hi)


class OutOfOrder(_Placed):
    """Events of which any may be unknown yet: every row looks at each one of its time."""

    def __init__(self, events: Events, number: Longs, precision: int) -> None:
        super().__init__(events, number, precision)
        by_known = np.argsort(self.place(events.entity, events.known_at), kind="stable")
        self._by_known = self.place(events.entity, events.known_at)[by_known]

    def count(self, entity: Longs) -> Longs:
        """Return how many events each row may have to look at."""
        first, beyond = np.searchsorted(self.events.entity, [entity, entity + 1])
        count: Longs = beyond - first
        return count

    def look(self, entity: Longs, time: Longs, oldest: Longs) -> Sight:
        """Return what rows see that happened at or after `oldest`."""
        return _Pairs(self, entity, time, oldest)

    def known(self, entity: Longs, time: Longs) -> NDArray[np.bool_]:
        """Tell which rows see any event at all."""
        first = np.searchsorted(self._by_known, entity * self._span)
        return np.searchsorted(self._by_known, self.place(entity, time), "right") > first


class _Pairs:
    def __init__(self, source: OutOfOrder, entity: Longs, time: Longs, oldest: Longs) -> None:
        self._source, self._rows = source, len(entity)
        lo = np.searchsorted(source.by_time, source.place(entity, oldest))
        hi = np.searchsorted(source.by_time, source.place(entity, time), "right")
        length = np.maximum(hi - lo, 0)
        row = np.repeat(np.arange(len(entity)), length)
        event = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length) + np.repeat(lo, length)
        seen = source.events.known_at[event] <= time[row]
        self._row, self._event = row[seen], event[seen]
        self.known = source.known(entity, time)
        self.latest = np.full(len(entity), np.iinfo(np.int64).min // 2)
        np.maximum.at(self.latest, self._row, source.events.time[self._event])

    def since(self, start: Longs) -> Inside:
        some = self._source.events.time[self._event] >= start[self._row]
        return _Listed(self._source, self._rows, self._row[some], self._event[some])


class _Listed:
    def __init__(self, source: OutOfOrder, rows: int, row: Longs, event: Longs) -> None:
        self._source, self._rows, self._row, self._event = source, rows, row, event
        self.n = np.bincount(row, minlength=rows)

    def fold(self, column: str, partial: str) -> NDArray[np.generic]:
        events = self._source.events
        if partial == "last":
            last = np.full(self._rows, -1)
            np.maximum.at(last, self._row, self._source.number[self._event])
            return last
        if partial == "distinct":
            coupons = events.coupons[column][self._event]
            some = coupons >= 0
            registers = np.zeros((self._rows, 1 << self._source.precision), np.uint8)
            ranks = (coupons[some] & 63).astype(np.uint8)
            np.maximum.at(registers, (self._row[some], coupons[some] >> 6), ranks)
            return registers
        values = events.numbers[column][self._event]
        out = np.full(self._rows, _EMPTY[partial])
        COMBINE[partial].at(out, self._row, values * values if partial == "sumsq" else values)
        return out
