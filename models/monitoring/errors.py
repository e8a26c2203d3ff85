"""A change within the stream of errors, found by River's ADWIN (Bifet & Gavaldà, "Learning from time-changing
data with adaptive windowing", 2007): two parts of a window of growing length whose means differ too much.

A window's measured performance sees a week that is bad; this sees errors that rise over weeks, none of which
is bad enough. ADWIN takes values from 0 to 1: an error is told as its rank among the reference's, so one huge
loss is no more than the largest. `delta` bounds the probability of a change where there is none.

It does so for errors that do not hang together. Where all dealers share good and bad weeks, a bad one is no
change: a week's mean is drawn towards the middle by as much as weeks differ by themselves (`spread_of_weeks`,
`steadied`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_block", "ranks", "rises", "spread_of_weeks", "steadied"]

Floats = NDArray[np.float64]
_FEWEST_WEEKS = 3


def by_block(loss: Floats, scale: Floats, block: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Return each block's loss over its scale, in the order of block numbers, and the numbers; blocks without
    scale are left out.
    """
    numbers, at = np.unique(block, return_inverse=True)
    losses, scales = (np.bincount(at, each, len(numbers)) for each in (loss, scale))
    good = scales > 0
    return losses[good] / scales[good], numbers[good]


def ranks(errors: Floats, reference: Floats) -> Floats:
    """Return the share of reference errors below each error, ties counted half."""
    known = np.sort(reference)
    low, high = (np.searchsorted(known, errors, side) for side in ("left", "right"))
    found: Floats = (low + high) / (2 * max(len(known), 1))
    return found


def spread_of_weeks(ranked: Floats, week: NDArray[np.int64]) -> float:
    """Return how many times the variance of weeks' means is what their dealers explain, at least 1: the F of an
    analysis of variance. `week` is each error's.
    """
    _, at, rows = np.unique(week, return_inverse=True, return_counts=True)
    if len(rows) < _FEWEST_WEEKS or len(ranked) <= len(rows):
        return 1.0
    means = np.bincount(at, ranked) / rows
    within = float(((ranked - means[at]) ** 2).sum()) / (len(ranked) - len(rows))
    between = float((rows * (means - ranked.mean()) ** 2).sum()) / (len(rows) - 1)
    return max(1.0, between / within) if within > 0 else 1.0


def steadied(ranked: Floats, week: NDArray[np.int64], spread: float) -> Floats:
    """Return ranks whose weeks' means differ from the middle as those of dealers that share nothing."""
    _, at, rows = np.unique(week, return_inverse=True, return_counts=True)
    off = np.bincount(at, ranked) / rows - 0.5
    found: Floats = np.clip(ranked - off[at] * (1 - 1 / np.sqrt(spread)), 0.0, 1.0)
    return found


def rises(errors: Iterable[float], delta: float) -> list[int]:
    """Return the places at which ADWIN sees the errors rise; a fall is no alarm."""
    from river.drift import ADWIN

    detector, found, before = ADWIN(delta=delta), [], 0.0
    for place, error in enumerate(errors):
        before = detector.estimation if detector.width else before
        detector.update(error)
        if detector.drift_detected and detector.estimation > before:
            found.append(place)
    return found
