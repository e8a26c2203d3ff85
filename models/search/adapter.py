"""A linear map from an old encoder's space to a new one's, so that an old index is searched by the new encoder.

While a new index is filled, texts that both encoders have encoded show how their spaces lie to each other.
Ridge regression gives the new vector that an old one stands for (Hoerl and Kennard, 1970); Vejendla's "Drift-
Adapter" (2025) exchanges encoders with such maps, from new queries to old vectors. The other direction does
better here: a cosine is then taken in the new encoder's space, of which the old vectors know a part. Its ridge
is the one that predicts texts best which it was not fitted on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import DealerIQError

__all__ = ["LEAST", "AdapterError", "VectorMap"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
LEAST = 300
"""Texts that both encoders must have encoded before a map is worth anything."""
_RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
_HELD_OUT = 5  # every fifth text


class AdapterError(DealerIQError):
    """Too few texts are encoded by both encoders, or a file holds no map."""

    remedy = "Let `dealeriq reindex run` encode some hundred texts first, then `dealeriq reindex adapt`."
    exit_code = 1


class VectorMap:
    """The map `matrix` float32 [old, new] between two encoders, by their identities."""

    def __init__(self, old: str, new: str, matrix: Floats) -> None:
        self.old, self.new, self._matrix = old, new, matrix

    @classmethod
    def fitted(cls, old: str, new: str, before: Floats, after: Floats) -> VectorMap:
        """Fit it on the vectors of the same texts by both, a row each. Raises AdapterError."""
        if len(before) < LEAST:
            raise AdapterError(f"{len(before):,} texts are encoded by both, and a map takes {LEAST}")
        held = np.arange(len(before)) % _HELD_OUT == 0
        best = max(
            _RIDGES,
            key=lambda ridge: _likeness(
                before[held] @ _solved(before[~held], after[~held], ridge), after[held]
            ),
        )
        return cls(old, new, _solved(before, after, best))

    def query(self, vector: Floats) -> Floats:
        """Return the old vector, of length 1, near which to look for what is near to a new one."""
        found: Floats = self._matrix @ vector
        return found / max(float(np.linalg.norm(found)), 1e-12)

    def scores(self, vector: Floats, old: Floats) -> Floats:
        """Return the cosine of a new vector with each old one, as the new encoder would have it."""
        mapped = old @ self._matrix
        found: Floats = (mapped @ vector) / np.maximum(np.linalg.norm(mapped, axis=1), 1e-12)
        return found

    def save(self, file: Path) -> None:
        """Put it in the place of what is there, in one step."""
        beside = file.with_name(f".{file.name}-{os.getpid()}")
        with beside.open("wb") as out:
            np.savez(out, old=self.old, new=self.new, matrix=self._matrix)
        beside.replace(file)

    @classmethod
    def load(cls, file: Path) -> VectorMap:
        """Read it back. Raises AdapterError."""
        try:
            with np.load(file, allow_pickle=False) as held:
                return cls(str(held["old"]), str(held["new"]), held["matrix"].astype(np.float32))
        except (OSError, ValueError, KeyError) as error:
            raise AdapterError(f"{file} holds no map between encoders: {error}") from error


def _solved(before: Floats, after: Floats, ridge: float) -> Floats:
    gram = before.T @ before + ridge * np.eye(before.shape[1], dtype=np.float32)
    return np.linalg.solve(gram, before.T @ after).astype(np.float32)


def _likeness(mapped: Floats, wanted: Floats) -> float:
    """The mean cosine."""
    lengths = np.linalg.norm(mapped, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((mapped * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
