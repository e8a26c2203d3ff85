"""From order lines with their features to scores: one batch through one model. Pure, but for the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.plan import Plan
from models.artifact import ArtifactError, Description
from models.inputs import Code, EventField
from models.runtime import Session
from schemas.catalogue import topic
from streams.scoring.scores import Scores
from streams.scoring.version import Version

if TYPE_CHECKING:
    import polars as pl

__all__ = ["KEYS", "LineScorer", "Scored"]

SUBJECT = "order"
KEYS = ("event_id", "dealer_id", "product_id", "category")
"""What a score of an order line names of it, and what its features are looked up by."""
_NUMBERS = ("int", "long", "float", "double")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """A batch that one version answered: row i is of line i, NaN in `answers` where it had none.

    `told` says which lines pass a rule's threshold, `latency_ms` how long the batch took.
    """

    vectors: Vectors
    answers: Vectors
    told: NDArray[np.bool_]
    latency_ms: float

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which lines have a score."""
        return np.asarray(np.isfinite(self.answers).all(1))


class LineScorer(Version):
    """One version of a model of order lines.

    Raises ArtifactError for a model that reads what neither an order line nor the feature plan has.
    """

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        super().__init__(session, plan, shadow=shadow, decided_at=decided_at, share=share)
        told = session.description
        schema = topic("orders").schema
        assert schema is not None
        kinds = {each["name"]: each["type"] for each in schema["fields"]}
        fields = [each.field for each in told.inputs if isinstance(each, EventField)]
        for name in fields:
            if kinds.get(name) not in _NUMBERS:
                raise ArtifactError(f"{self.named} reads {name}, which is no number of an order line")
        for each in told.inputs:
            if isinstance(each, Code) and each.key not in KEYS:
                has = ", ".join(KEYS)
                raise ArtifactError(f"{self.named} reads {each.key}; of an order line it may read {has}")
        for view in told.views:
            entity = plan.views[view].entity
            if not set(entity) <= set(KEYS):
                raise ArtifactError(f"{self.named} reads {view}, and an order line has no {', '.join(entity)}")
        self.fields = tuple(dict.fromkeys(fields))

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether a model is about single order lines."""
        return told.subject_type == SUBJECT and any(isinstance(each, EventField) for each in told.inputs)

    def answer(self, columns: dict[str, Any], times: NDArray[np.int64]) -> Scored:
        """Answer lines: `columns` holds `view__feature`, `@field` and keys.

        Missing, NaN and infinite values are missing to the model, as in training.
        """
        began = time.perf_counter()
        vectors = self.session.vectors(columns, times)
        answers = self.session.run(vectors)
        told = self._rules.passed(vectors, answers)
        return Scored(vectors, answers, told, (time.perf_counter() - began) * 1000)

    def scores(
        self, lines: pl.DataFrame, scored: Scored, rows: NDArray[np.int64], sampled: NDArray[np.bool_],
        counts: NDArray[np.bool_],
    ) -> Scores:  # fmt: skip
        """Return the scores of `rows`.

        `sampled` says of each row whether it is of the even sample, `counts` whether somebody acts on it.
        """
        chosen = lines.select([*KEYS, "event_time"])[rows]
        times = chosen["event_time"].to_numpy()
        keys = {name: chosen[name].to_list() for name in KEYS}
        ids = keys["event_id"]
        # Rules speak of a line once, so what they say of one below their threshold is of no use to anyone.
        return self._scores(
            rows, keys, ids, ids, times, times, scored.vectors[rows], scored.answers[rows], scored.latency_ms,
            counts, sampled, scored.told[rows],
        )  # fmt: skip
