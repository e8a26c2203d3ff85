"""Exponential decay in event time.

A decayed count is the sum over its events of 2^-(age / half-life), an event's age being measured from the
newest event that the record holds: Cormode, Shkapenyuk, Srivastava and Xu, "Forward Decay: A Practical Time
Decay Model for Streaming Systems" (ICDE 2009). A late event counts as it would have in time; the order of
events does not matter; and as all counts shrink alike, what was not touched keeps its place among the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EPOCH_S", "Decay", "seconds_of"]

EPOCH_S = 946_684_800
"""2000-01-01T00:00:00Z: event times are kept as whole seconds since then, in 32 bits until 2136."""


def seconds_of(ms: int) -> int:
    """Return an event time, ms since 1970, as seconds since 2000; one before that is 0."""
    return max(0, ms // 1000 - EPOCH_S)


class Decay:
    """Weights under one half-life, in days."""

    def __init__(self, half_life_days: float) -> None:
        self._half_life_s = half_life_days * 86_400

    def weight(self, age_s: NDArray[Any]) -> NDArray[np.float64]:
        """Return 2^-(age / half-life); a negative age, which is of an event of the future, counts as 0."""
        return np.exp2(-np.maximum(np.asarray(age_s, np.float64), 0.0) / self._half_life_s)
