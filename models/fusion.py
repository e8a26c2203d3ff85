"""One vector of several: the vectors that a product has, side by side, each times the root of its weight.

The cosine of two such vectors is the weighted mean of the cosines of their parts. A part that is missing is a
block of zeros, so products with other parts can be compared by what both have. The text must be there: it comes
first and goes first, so a product that is deleted loses this vector at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.ids import event_id

__all__ = ["HYBRID", "REQUIRED", "Fusion", "Part", "fused_name", "middle"]

HYBRID = "hybrid"
"""The kind of these vectors."""
REQUIRED = "text"
"""The part without which there is no vector."""
_LEAST = 1e-9  # length below which a vector has no direction

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """A kind that takes part: whose vectors they are (`name@version`), how long, what their cosine weighs."""

    kind: str
    encoder: str
    dimension: int
    weight: float


@dataclass(frozen=True)
class Fusion:
    """What vectors of some kinds, each of one encoder, become. Another encoder or weight is another fusion."""

    parts: tuple[Part, ...]

    @cached_property
    def dimension(self) -> int:
        """Length of the vectors."""
        return sum(each.dimension for each in self.parts)

    @cached_property
    def encoder(self) -> str:
        """`name@version`: the version follows from those of the parts, so that no two spaces have one name."""
        what = json.dumps([asdict(each) for each in self.parts], sort_keys=True)
        return f"{fused_name(self.dimension)}@{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    def mark(self, given: Sequence[tuple[str, str]]) -> str | None:
        """Return the fingerprint of a product's vector from (kind, fingerprint) of its parts.

        Where it is the same nothing has to be computed; None without a text.
        """
        if not any(kind == REQUIRED for kind, _ in given):
            return None
        return event_id(HYBRID, self.encoder, *(name for each in given for name in each))

    def fuse(self, given: Mapping[str, Sequence[Vector]]) -> Vector | None:
        """Return a product's vector, of length 1, from those of each kind; None without the one of its text.

        Of several vectors of a kind (the chunks of a text) their middle counts.
        """
        blocks = []
        for each in self.parts:
            found = middle(given.get(each.kind, ()))
            if found is None and each.kind == REQUIRED:
                return None
            blocks.append(np.zeros(each.dimension) if found is None else float(np.sqrt(each.weight)) * found)
        beside = np.concatenate(blocks)
        return (beside / np.linalg.norm(beside)).astype(np.float32)


def middle(vectors: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return the direction of the mean of vectors; None where there is none."""
    if not len(vectors):
        return None
    mean = np.mean(np.asarray(vectors, np.float64), axis=0)
    length = float(np.linalg.norm(mean))
    return None if length < _LEAST else mean / length


def fused_name(dimension: int) -> str:
    """Return the name of fused vectors of this length, without a version: their parts make versions."""
    return f"{HYBRID}-{dimension}"
