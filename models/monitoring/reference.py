"""What a version's inputs, answers and outcomes were on rows that it had not learnt from: `reference.npz`.

The rows are drawn as the stream draws them (`models.monitoring.sampling`): each subject at one of its events in
each week of the holdout. Drift is told against these rows, and what a stationary stream looks like by chance
is found by drawing from them again.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.artifact import ArtifactError

__all__ = ["REFERENCE", "WEEK_MS", "Reference", "load_reference", "save_reference"]

REFERENCE = "reference.npz"
WEEK_MS = 7 * 86_400_000


@dataclass(frozen=True)
class Reference:
    """Rows of the holdout: `x` float32 [rows, inputs], `answers` float32 [rows, outputs], `y` the outcomes.

    `block` numbers the dealer and week of each row, from 0: rows of one block are alike and are drawn together.
    `period` is the week, `event_time // WEEK_MS`.
    """

    x: NDArray[np.float32]
    answers: NDArray[np.float32]
    y: NDArray[np.float64]
    block: NDArray[np.int64]
    period: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


def save_reference(folder: Path, reference: Reference) -> Path:
    """Write it into a version's folder, whole or not at all; one that is there is left. Return the file."""
    file = folder / REFERENCE
    if file.exists():
        return file
    handle, name = tempfile.mkstemp(prefix=f".{REFERENCE}-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as fresh:
            np.savez_compressed(
                fresh, **{each.name: getattr(reference, each.name) for each in fields(Reference)}
            )
        Path(name).chmod(0o644)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
    return file


def load_reference(folder: Path, inputs: int, outputs: int) -> Reference:
    """Read a version's reference. Raises ArtifactError where it is missing, damaged or of another model."""
    file = folder / REFERENCE
    try:
        with np.load(file, allow_pickle=False) as held:
            found = Reference(**{each.name: held[each.name] for each in fields(Reference)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{file} cannot be read, so drift of this version is not told: {error}",
            remedy="Train the model again: versions of earlier releases have no reference.",
        ) from error
    rows = len(found)
    shapes = (found.x.shape, found.answers.shape, found.block.shape, found.period.shape)
    if rows == 0 or shapes != ((rows, inputs), (rows, outputs), (rows,), (rows,)):
        raise ArtifactError(
            f"{file} has rows of {shapes[0]} and {shapes[1]}, and the model has {inputs} inputs and {outputs} "
            "outputs: it is of another model"
        )
    return found
