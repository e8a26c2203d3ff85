"""Why a score is what it is: how far each input moved it away from what it would be with the usual value.

Occlusion: input i is set to its usual value (`reference` in model.json), the rest stays, and the model answers
again; contribution i is f(x) - f(x with i usual). It asks the served ONNX file itself, so it is exact for
whatever the file holds (trees behind a link, quantiles, a classifier), needs no training library, and repeats
to the bit. For a model that adds its inputs up it equals the Shapley value (Covert, Lundberg and Lee 2021,
"Explaining by removing"). Interactions are counted with each of their inputs, so contributions do not add
up to the score; they rank, and that is what they are used for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.artifact import Description
from models.inputs import Coefficient
from models.runtime import Session

__all__ = ["contributions", "reference", "strongest"]

Vectors = NDArray[np.float32]
STRONGEST = 3


def reference(description: Description) -> Vectors:
    """Return the usual value of each input; NaN (missing) where the model names none."""
    if len(description.reference) != len(description.inputs):
        return np.full(len(description.inputs), np.nan, np.float32)
    return np.asarray(description.reference, np.float32)


def contributions(session: Session, vectors: Vectors, answers: Vectors) -> NDArray[np.float64]:
    """Return float64 [rows, inputs, outputs]: how much more each output is for each input's actual value.

    `answers` is what the session gave for `vectors`. One batch of rows x inputs.
    """
    rows, width = vectors.shape
    usual = reference(session.description)
    own = [isinstance(each, Coefficient) for each in session.description.inputs]
    asked = np.repeat(vectors, width, axis=0).reshape(rows, width, width)
    at = np.arange(width)
    asked[:, at, at] = np.where(own, vectors, usual)  # a coefficient of the model itself explains nothing
    without = session.run(asked.reshape(rows * width, width)).reshape(rows, width, -1)
    moved = answers[:, None, :].astype(np.float64) - without.astype(np.float64)
    return np.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0)


def strongest(moved: NDArray[np.float64], above: bool, count: int = STRONGEST) -> list[list[int]]:
    """Return for each row of [rows, inputs] the inputs that moved a value most in a rule's direction, the
    strongest first; ties by place.
    """
    towards = moved if above else -moved
    order = np.argsort(-towards, axis=1, kind="stable")[:, :count]
    there = np.take_along_axis(towards, order, 1) > 0
    return [
        [i for i, moves in zip(row, moving, strict=True) if moves]
        for row, moving in zip(order.tolist(), there.tolist(), strict=True)
    ]
