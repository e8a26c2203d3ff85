"""What chance does on a stationary stream: blocks of rows drawn again, a reference and a window at a time.

The rows of one dealer in one week are alike, so whole blocks (dealer and week) are drawn, never rows: the
cluster bootstrap (Field & Welsh, 2007). Weeks differ from each other by themselves, too, by more than their
dealers: how much more is told by the reference's own weeks, each beside the rest (`weeks`), and limits are
widened by it, as quasi-likelihood does for overdispersion (McCullagh & Nelder, 1989). A handful of weeks
tells it roughly: limits reckon with how roughly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.monitoring.reference import Reference

__all__ = ["Blocks"]

Floats = NDArray[np.float64]
_AT_ONCE = 250
_FEWEST_WEEKS = 3
_KNOWN = 1e6  # degrees of freedom: as good as infinity


class Blocks:
    """The blocks of a reference; `draw` yields how often each is taken."""

    def __init__(self, reference: Reference) -> None:
        self.count = int(reference.block.max()) + 1
        self._of = reference.block
        period = np.zeros(self.count, np.int64)
        period[reference.block] = reference.period
        self._periods = [period == each for each in np.unique(period)]

    @property
    def of_a_week(self) -> int:
        """Blocks of a week, on average."""
        return max(1, self.count // len(self._periods))

    def sums(self, values: Floats) -> Floats:
        """Return the sums of rows' values [rows, n] by block, [blocks, n]."""
        found = np.zeros((self.count, values.shape[1]))
        np.add.at(found, self._of, values)
        return found

    def draw(self, blocks: int, draws: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
        """Yield (reference, window) weights [some, blocks], `draws` in all; a window has `blocks`."""
        rng = np.random.default_rng(seed)
        for begin in range(0, draws, _AT_ONCE):
            some = min(_AT_ONCE, draws - begin)
            yield self._weights(rng, some, self.count), self._weights(rng, some, blocks)

    def weeks(self, sums: Floats) -> tuple[Floats, Floats]:
        """Return the sums of all other weeks and of each week, [weeks, n] each; nothing where weeks are few."""
        if len(self._periods) < _FEWEST_WEEKS:
            return np.empty((0, sums.shape[1])), np.empty((0, sums.shape[1]))
        each = np.stack([sums[period].sum(axis=0) for period in self._periods])
        return each.sum(axis=0) - each, each

    @property
    def count_of_weeks(self) -> int:
        """Weeks of the reference; 0 where they are too few to tell how they differ."""
        return len(self._periods) if len(self._periods) >= _FEWEST_WEEKS else 0

    def freedom(self, spread: Floats) -> Floats:
        """Return the degrees of freedom of a variance that is `spread` (>= 1) times what the dealers explain.

        The dealers' part is known, the rest was estimated from the weeks there are (Satterthwaite, 1946): from
        one less than the weeks, where the weeks are all that matters, to infinity, where nothing is left to
        them.
        """
        with np.errstate(divide="ignore"):
            share = np.where(spread > 1.0, spread / (spread - 1.0), np.inf)
        found: Floats = (len(self._periods) - 1) * share**2
        return np.minimum(found, _KNOWN)

    def _weights(self, rng: np.random.Generator, some: int, taken: int) -> Floats:
        flat = rng.integers(0, self.count, (some, taken)) + np.arange(some)[:, None] * self.count
        return np.bincount(flat.ravel(), minlength=some * self.count).reshape(some, self.count).astype(float)
