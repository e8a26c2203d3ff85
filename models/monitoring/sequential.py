"""Is one version better than another, asked after every window without asking too often.

An asymptotic confidence sequence for a mean (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics, 2024): an interval that holds
at all sample sizes at once, so a decision may be taken at the first look that allows it. What one dealer adds
in several windows is alike: the variance is that of sums by dealer (cluster-robust; Liang & Zeger, 1986).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gain", "gain"]

Floats = NDArray[np.float64]
_TIGHTEST_AT = 500  # pairs at which the interval is as narrow as it can be


@dataclass(frozen=True)
class Gain:
    """How much less loss one version has than another, as a share of the other's, with its interval."""

    gain: float
    low: float
    high: float
    pairs: int


def gain(other: Floats, new: Floats, dealer: NDArray[np.int64], alpha: float) -> Gain:
    """Return the gain of `new` over `other`: losses of the same dealers in the same windows, by pair.

    The interval holds at all sizes together with probability 1 - `alpha`, asymptotically; NaN-free only where
    there are pairs and the other has loss.
    """
    pairs, loss = len(other), float(other.sum())
    if pairs < 2 or not loss > 0:
        return Gain(float("nan"), float("-inf"), float("inf"), pairs)
    saved = other - new
    mean = float(saved.mean())
    _, number = np.unique(dealer, return_inverse=True)
    by_dealer = np.bincount(number, saved - mean)
    deviation = float(np.sqrt((by_dealer**2).sum() / pairs))
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / _TIGHTEST_AT
    known = pairs * rho2 + 1
    width = deviation * float(np.sqrt(2 * known / (pairs**2 * rho2) * np.log(np.sqrt(known) / alpha)))
    usual = loss / pairs
    return Gain(mean / usual, (mean - width) / usual, (mean + width) / usual, pairs)
