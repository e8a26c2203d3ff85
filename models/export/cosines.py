"""The gate of exported encoders: their vectors point where the source's do, alone and in a padded batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from models.encoding import Encoder, Vectors
from models.export.parity import ParityError

__all__ = ["LEAST_COSINE", "lowest_cosines"]

LEAST_COSINE = 0.9999
_T = TypeVar("_T")
_REMEDY = (
    "Nothing was written. The exporter traced something that depends on the batch, or tokens and sizes are not "
    "cut as the source does: export with another version of the model, or report which model it is."
)


def lowest_cosines(
    what: str,
    ours: Encoder[_T],
    source: Callable[[Sequence[_T]], Vectors],
    inputs: Sequence[_T],
    least: float = LEAST_COSINE,
) -> dict[str, float]:
    """Compare on all inputs in one batch, and on each alone; return the lowest cosine of both.

    The two differ where padding leaks into a vector. Raises ParityError below `least`, naming the worst input.
    """
    found = {}
    for way, batches in (("batch", [list(inputs)]), ("alone", [[each] for each in inputs])):
        mine = np.concatenate([ours.encode(each) for each in batches])
        theirs = np.concatenate([np.asarray(source(each), np.float32) for each in batches])
        if mine.shape != theirs.shape:
            raise ParityError(
                f"{what}: the export gives vectors of {mine.shape[1]} numbers, the source of {theirs.shape[1]}",
                remedy=_REMEDY,
            )
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines = np.einsum("ij,ij->i", mine, theirs) / np.maximum(lengths, 1e-12)
        worst = int(np.nan_to_num(cosines, nan=-1.0).argmin())
        if not cosines[worst] >= least:
            raise ParityError(
                f"{what}: cosine {cosines[worst]:.5f} to the source model at input {worst} ({way}); {least} is "
                f"asked of each ({int((~(cosines >= least)).sum())} of {len(cosines)} are below it)",
                remedy=_REMEDY,
            )
        found[f"{what} {way}"] = round(float(cosines[worst]), 6)
    return found
