"""Drift of inputs and outputs: the population stability index, and how large it gets by chance.

PSI = sum over bins of (a - e) ln(a / e), with the shares e of the reference and a of the window (Karakoulas,
2004; Siddiqi, 2006). The customary 0.1 and 0.25 say nothing of chance: with few rows a stationary stream passes
them (Yurdakul & Naranjo, 2020). So each series' limit comes from drawing reference and window again
(`models.monitoring.blocks`), at one tail probability for all series that keeps the probability of any false
alarm at what is asked, however many series there are and however they move together (min-P: Westfall & Young,
1993).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, gamma, norm

from models.monitoring.blocks import Blocks
from models.monitoring.reference import Reference

__all__ = ["Bins", "Drift", "DriftTest", "psi"]

Floats = NDArray[np.float64]
_BINS = 10
_SMALLEST = 1e-9
_DRAWS_OF_WEEKS = 250
_SURE = 0.95  # of how much weeks differ by themselves


def psi(expected: Floats, actual: Floats) -> Floats:
    """Return the index of counts by bin (the last axis); half a row is added to each bin, so none is empty."""
    bins = expected.shape[-1]
    e = (expected + 0.5) / (expected.sum(axis=-1, keepdims=True) + 0.5 * bins)
    a = (actual + 0.5) / (actual.sum(axis=-1, keepdims=True) + 0.5 * bins)
    found: Floats = ((a - e) * np.log(a / e)).sum(axis=-1)
    return found


class Bins:
    """Bins of equally many reference rows for each series, and one of its own for what is missing."""

    def __init__(self, reference: NDArray[np.float32]) -> None:
        self._edges = [_edges(column) for column in reference.T]
        widths = [len(edges) + 2 for edges in self._edges]
        self.starts = np.concatenate([[0], np.cumsum(widths)])
        self.series = len(widths)

    def counted(self, values: NDArray[np.float32]) -> Floats:
        """Return which bin each row is in: 1 in one bin of each series, [rows, bins of all series]."""
        found = np.zeros((len(values), self.starts[-1]))
        rows = np.arange(len(values))
        for edges, start, column in zip(self._edges, self.starts, values.T, strict=False):
            code = np.searchsorted(edges, column, "left")
            found[rows, start + np.where(np.isnan(column), len(edges) + 1, code)] = 1.0
        return found

    def each(self, expected: Floats, actual: Floats) -> Floats:
        """Return the index of each series from counts [..., bins of all series]: [..., series]."""
        parts = zip(self.starts[:-1], self.starts[1:], strict=True)
        return np.stack([psi(expected[..., a:b], actual[..., a:b]) for a, b in parts], axis=-1)


def _edges(column: NDArray[np.float32]) -> NDArray[np.float32]:
    known = column[~np.isnan(column)]
    if not len(known):
        return np.empty(0, np.float32)
    return np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1], method="lower"))


@dataclass(frozen=True)
class Drift:
    """The index of each series in a window, and the limit above which it is drift."""

    psi: Floats
    limit: Floats

    @property
    def worst(self) -> int:
        """The series that is furthest beyond its limit, or nearest to it."""
        return int(np.argmax(self.psi / self.limit))

    @property
    def alarm(self) -> bool:
        """Whether any series drifted."""
        return bool((self.psi > self.limit).any())


class DriftTest:
    """Holds windows against a reference; the series are columns of inputs and outputs together.

    Args:
        reference: rows of the holdout.
        series: their values, float32 [rows, series].
        false_alarms: probability that any series of a stationary window is called drifted.
        least: an index below this is no drift, however unlikely by chance.
        draws: how often chance is played.
    """

    def __init__(
        self,
        reference: Reference,
        series: NDArray[np.float32],
        *,
        false_alarms: float,
        least: float = 0.0,
        draws: int = 2_000,
        seed: int = 0,
    ) -> None:
        self._bins, self._blocks = Bins(series), Blocks(reference)
        counted = self._bins.counted(series)
        self._expected: Floats = counted.sum(axis=0)
        self._by_block = self._blocks.sums(counted)
        self._rows_of_block = len(series) / self._blocks.count
        self._false_alarms, self._least, self._draws, self._seed = false_alarms, least, draws, seed
        self._limits: dict[tuple[int, float], Floats] = {}
        self._shared = self._by_itself()

    def judge(self, series: NDArray[np.float32], blocks: int) -> Drift:
        """Return the drift of a window's rows, which come from `blocks` dealers."""
        actual: Floats = self._bins.counted(series).sum(axis=0)
        return Drift(self._bins.each(self._expected, actual), self._limit(len(series), blocks))

    def _limit(self, rows: int, blocks: int) -> Floats:
        # Two figures of the counts, downwards: fewer blocks vary more, and many windows share one answer.
        blocks = _rounded(blocks)
        thinned = min(1.0, round(rows / blocks / self._rows_of_block, 1) or 0.1)
        known = self._limits.get((blocks, thinned))
        if known is None:
            known = self._limits[blocks, thinned] = self._drawn(blocks, thinned)
        return known

    def _chance(self, blocks: int, thinned: float, draws: int) -> Floats:
        """Indexes of stationary windows, [draws, series]."""
        rng = np.random.default_rng(self._seed + 1)
        found = []
        for reference, window in self._blocks.draw(blocks, draws, self._seed):
            actual = window @ self._by_block
            if thinned < 1.0:
                actual = rng.binomial(actual.round().astype(np.int64), thinned).astype(np.float64)
            found.append(self._bins.each(reference @ self._by_block, actual))
        return np.concatenate(found)

    def _drawn(self, blocks: int, thinned: float) -> Floats:
        drawn = self._chance(blocks, thinned, self._draws)
        # Each series' index is near a weighted sum of chi-squares: a gamma of the same mean and variance
        # (Satterthwaite, 1946) tells its tail, which the draws alone are too few for.
        mean, variance = (np.maximum(each, _SMALLEST) for each in (drawn.mean(axis=0), drawn.var(axis=0)))
        chance = gamma(mean**2 / variance, scale=variance / mean)
        rarest = float(np.quantile(chance.sf(drawn).min(axis=1), self._false_alarms, method="lower"))
        limit: Floats = np.maximum(self._with_weeks(mean, variance).isf(rarest), max(self._least, _SMALLEST))
        return limit

    def _with_weeks(self, mean: Floats, variance: Floats) -> Any:
        """Chance where weeks differ by themselves, too. What all dealers share moves a series one way, so its
        part of the index is a chi-square of one degree of freedom; its scale is `_shared` of the dealers' part.
        """
        shared = mean * self._shared
        whole, spread = mean + shared, variance + 2 * shared**2
        return gamma(whole**2 / spread, scale=spread / whole)

    def _by_itself(self) -> Floats:
        """How much of the index weeks of the reference add to what their dealers explain, at most, by series.

        At most: the upper end of an interval, since few weeks tell little. Two things make it uncertain, the
        weeks' own share (a variance of as many degrees of freedom as there are weeks, less one) and what the
        dealers add by chance; they are put together as Zou & Donner (2008) do (MOVER).
        """
        rest, week = self._blocks.weeks(self._by_block)
        weeks = self._blocks.count_of_weeks
        if not weeks:
            return np.zeros(self._bins.series)
        drawn = self._chance(self._blocks.of_a_week, 1.0, _DRAWS_OF_WEEKS)
        usual = np.maximum(drawn.mean(axis=0), _SMALLEST)
        more = np.maximum(self._bins.each(rest, week).mean(axis=0) - usual, 0.0)
        least = float(chi2.isf(_SURE, weeks - 1)) / (weeks - 1)
        of_weeks, of_dealers = more * (1 / least - 1), norm.ppf(_SURE) * np.sqrt(drawn.var(axis=0) / weeks)
        found: Floats = (more + np.sqrt(of_weeks**2 + of_dealers**2)) / usual
        return found


def _rounded(count: int) -> int:
    step = int(10 ** max(0, len(str(count)) - 2))
    return count // step * step
