"""How a text is said, by labelled examples: kernel regression on the sphere of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TONES", "Tone"]

Floats = NDArray[np.float64]

TONES: Mapping[str, tuple[float, float]] = {"sentiment": (-1.0, 1.0), "urgency": (0.0, 1.0)}
"""Each tone with the least and the largest value that it has: the tables of `tone.toml`."""


@dataclass(frozen=True)
class Tone:
    """The mean of labelled values, each weighted by how near it is; `neutral` (a cosine) pulls towards 0."""

    texts: tuple[str, ...]
    values: Floats
    temperature: float
    neutral: float

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Tone:
        """Return the tone of a table of `tone.toml`. Raises KeyError, TypeError or ValueError for another."""
        pairs = [(float(each["value"]), text) for each in data["examples"] for text in each["texts"]]
        return cls(
            tuple(text for _, text in pairs), np.array([value for value, _ in pairs]),
            float(data["temperature"]), float(data["neutral"]),
        )  # fmt: skip

    def read(self, vectors: NDArray[np.float32], examples: NDArray[np.float32]) -> Floats:
        """Return the value of each vector; `examples` are the vectors of `texts`."""
        weights = np.exp((vectors @ examples.T - self.neutral).astype(np.float64) / self.temperature)
        found: Floats = weights @ self.values / (weights.sum(axis=1) + 1.0)
        return found
