"""The coefficients that leads are scored with: what the learner has reached, for whoever scores beside it."""

from __future__ import annotations

from models.leads import COEFFICIENTS

__all__ = ["Weights"]


class Weights:
    """Set by the learner after each commit, read by the scorer at the beginning of each batch."""

    def __init__(self) -> None:
        self.now: tuple[float, ...] = (0.0,) * len(COEFFICIENTS)
        """As `Learner.coefficients` gives them. It is replaced whole, so that a batch has one state."""
