"""Answers over any run of consecutive events: sums from prefixes, extremes and sketches from sparse tables.

Each is built once over the events of many entities and then asked for thousands of runs [lo, hi) at a time. A
sparse table holds, for each power of two, the answer of every run of that length, so that any run is the
answer of two that overlap (Bender and Farach-Colton, The LCA Problem Revisited, 2000). Levels are built when
a run first needs them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Extremes", "PrefixSums", "Registers"]

Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]

_BITS = 62  # of a signed 64-bit sum, with one to spare
_BLOCK = 32  # events a block of registers folds


class PrefixSums:
    """Sums of runs, to the last digit or two whatever the length of what stands before them.

    A difference of two floating-point prefixes would lose the digits that the prefix needs for itself. So each
    value is split into two whole numbers, of a coarse and of a fine unit, whose prefixes are exact.
    """

    def __init__(self, values: Doubles) -> None:
        top = float(np.abs(values).max(initial=0.0))
        room = _BITS - len(values).bit_length()
        self._scale = room - math.frexp(top)[1]
        self._fine = self._scale + room
        scaled = np.ldexp(values, self._scale)
        whole = np.rint(scaled)
        self._high = _prefix(whole)
        self._low = _prefix(np.rint(np.ldexp(scaled - whole, room)))

    def between(self, lo: Longs, hi: Longs) -> Doubles:
        """Return the sum of each run; an empty one is 0."""
        high = (self._high[hi] - self._high[lo]).astype(np.float64)
        low = (self._low[hi] - self._low[lo]).astype(np.float64)
        total: Doubles = np.ldexp(high, -self._scale) + np.ldexp(low, -self._fine)
        return total


def _prefix(whole: Doubles) -> Longs:
    out = np.zeros(len(whole) + 1, np.int64)
    np.cumsum(whole.astype(np.int64), out=out[1:])
    return out


class Extremes:
    """Least or greatest values of runs."""

    def __init__(self, values: Doubles, fold: np.ufunc, empty: float) -> None:
        self._levels, self._fold, self._empty = [values], fold, empty

    def between(self, lo: Longs, hi: Longs) -> Doubles:
        """Return the extreme of each run; an empty one is `empty`."""
        out = np.full(len(lo), self._empty)
        for level, some in _by_level(hi - lo):
            _grow(self._levels, level, self._fold)
            table = self._levels[level]
            out[some] = self._fold(table[lo[some]], table[hi[some] - (1 << level)])
        return out


class Registers:
    """HyperLogLog registers of runs: for each bucket the greatest rank.

    Whole blocks of events come from a sparse table over blocks, the events at both edges one by one.
    """

    def __init__(self, coupons: Longs, precision: int) -> None:
        """`coupons` are bucket << 6 | rank; -1 is an event without a value."""
        self._bucket = np.where(coupons < 0, 0, coupons >> 6)
        self._rank = np.where(coupons < 0, 0, coupons & 63).astype(np.uint8)
        self._buckets = 1 << precision
        blocks = len(coupons) // _BLOCK
        first = np.zeros((blocks, self._buckets), np.uint8)
        whole = blocks * _BLOCK
        place = np.arange(whole) // _BLOCK * self._buckets + self._bucket[:whole]
        np.maximum.at(first.reshape(-1), place, self._rank[:whole])
        self._levels = [first]

    def between(self, lo: Longs, hi: Longs) -> NDArray[np.uint8]:
        """Return the registers of each run, one row a run."""
        out = np.zeros((len(lo), self._buckets), np.uint8)
        begin, end = -(-lo // _BLOCK), hi // _BLOCK
        for level, some in _by_level(end - begin):
            _grow(self._levels, level, np.maximum)
            table = self._levels[level]
            out[some] = np.maximum(table[begin[some]], table[end[some] - (1 << level)])
        inner = end > begin
        self._edge(out, lo, np.where(inner, begin * _BLOCK, hi))
        self._edge(out, np.where(inner, end * _BLOCK, hi), hi)
        return out

    def _edge(self, out: NDArray[np.uint8], lo: Longs, hi: Longs) -> None:
        flat = out.reshape(-1)
        rows = np.flatnonzero(hi > lo)
        at, end, base = lo[rows], hi[rows], rows * self._buckets
        while len(at):
            place = base + self._bucket[at]
            flat[place] = np.maximum(flat[place], self._rank[at])
            at = at + 1
            more = at < end
            at, end, base = at[more], end[more], base[more]


def _by_level(length: Longs) -> list[tuple[int, Longs]]:
    """Group runs by the largest power of two in their length; empty ones are left out."""
    levels = np.frexp(length.astype(np.float64))[1] - 1
    some = np.flatnonzero(length > 0)
    return [(int(level), some[levels[some] == level]) for level in np.unique(levels[some])]


def _grow(levels: list[Any], level: int, fold: np.ufunc) -> None:
    while len(levels) <= level:
        below, step = levels[-1], 1 << (len(levels) - 1)
        levels.append(fold(below[:-step], below[step:]))
