"""The model that ranks recommendations, as whoever reads them takes it up from Redis.

The view offers it there (`offer.py`), so a reader needs Redis alone. Its key has no position: it is a copy, and
written again where it is missing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.artifact import ArtifactError, Description, save
from models.inputs import event_column, needed
from models.recommend.candidates import COLUMNS
from models.recommend.decay import EPOCH_S
from models.runtime import RuntimeSettings, Session

__all__ = ["FIELDS", "MODEL", "ModelRanker", "checked"]

MODEL = "next_best_products"
FIELDS = ("version", "description", "onnx")
"""Of the hash in Redis."""

Floats = NDArray[np.float64]


class ModelRanker:
    """One version, ready to score candidates. Raises ArtifactError for a model that reads something else."""

    def __init__(self, session: Session) -> None:
        checked(session.description)
        self._session, self.version = session, session.version

    @classmethod
    def unpack(cls, description: bytes, onnx: bytes, settings: RuntimeSettings | None = None) -> ModelRanker:
        """Open what the view offers. Raises ArtifactError."""
        told = Description.from_json(description.decode())
        with tempfile.TemporaryDirectory(prefix="dealeriq-ranker-") as room:
            return cls(Session(save(Path(room) / told.version, told, onnx), settings))

    def at(self, now_s: int) -> Callable[[Mapping[str, Floats]], Floats]:
        """Return what scores `Candidates.columns` as of a time, s since 2000."""

        def scores(columns: Mapping[str, Floats]) -> Floats:
            given = {event_column(name): values for name, values in columns.items()}
            rows = len(next(iter(columns.values())))
            vectors = self._session.vectors(given, np.full(rows, (now_s + EPOCH_S) * 1000, np.int64))
            return self._session.scores(self._session.run(vectors))

        return scores


def checked(description: Description) -> None:
    """Raise ArtifactError for a model that reads something else than candidates are told in."""
    known = {event_column(name) for name in COLUMNS}
    foreign = [name for name in needed(description.inputs) if name not in known]
    if description.name != MODEL or foreign:
        raise ArtifactError(
            f"{description.name} {description.version} ranks no candidates of recommendations"
            + (f": it reads {', '.join(foreign)}" if foreign else "")
        )
