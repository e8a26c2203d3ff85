"""A change within the stream of errors, found by River's ADWIN (Bifet & Gavaldà, "Learning from time-changing
data with adaptive windowing", 2007): two parts of a window of growing length whose means differ too much.

A window's measured performance sees a week that is bad; this sees errors that rise over weeks, none of which
is bad enough. ADWIN takes values from 0 to 1: an error is told as its rank among the reference's, so one huge
loss is no more than the largest. `delta` bounds the probability of a change where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_block", "ranks", "rises"]

Floats = NDArray[np.float64]


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
