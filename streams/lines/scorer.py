"""From order lines with their features to scores: one batch through one model. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.plan import Plan
from models.artifact import ArtifactError, Description
from models.inputs import Code, EventField
from models.runtime import Session
from schemas.catalogue import topic
from schemas.ids import derived_id
from streams.scoring.readings import RuleReader

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


class LineScorer:
    """One version of a model of order lines as the stream runs it; arguments as for `streams.scoring.Scorer`.

    Raises ArtifactError for a model that reads what neither an order line nor the feature plan has.
    """

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        told = session.description
        self.session, self.shadow, self.decided_at, self.share = session, shadow, decided_at, share
        schema = topic("orders").schema
        assert schema is not None
        kinds = {each["name"]: each["type"] for each in schema["fields"]}
        what = f"{told.name} {told.version}"
        fields = [each.field for each in told.inputs if isinstance(each, EventField)]
        for name in fields:
            if kinds.get(name) not in _NUMBERS:
                raise ArtifactError(f"{what} reads {name}, which is no number of an order line")
        for each in told.inputs:
            if isinstance(each, Code) and each.key not in KEYS:
                raise ArtifactError(f"{what} reads {each.key}; of an order line it may read {', '.join(KEYS)}")
        for view, names in told.views.items():
            known = plan.views.get(view)
            have = [] if known is None else [each.name for each in known.features]
            if missing := [name for name in names if name not in have]:
                raise ArtifactError(f"{what} reads {view}.{missing[0]}, which the feature plan has not")
            if known is not None and not set(known.entity) <= set(KEYS):
                raise ArtifactError(f"{what} reads {view}, and an order line has no {', '.join(known.entity)}")
        self.views, self.fields = told.views, tuple(dict.fromkeys(fields))
        self._rules = RuleReader(session)

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether a model is about single order lines."""
        return told.subject_type == SUBJECT and any(isinstance(each, EventField) for each in told.inputs)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.session.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.session.version

    def answer(self, columns: dict[str, Any], times: NDArray[np.int64]) -> Scored:
        """Answer lines: `columns` holds `view__feature`, `@field` and keys.

        Missing, NaN and infinite values are missing to the model, as in training.
        """
        began = time.perf_counter()
        vectors = self.session.vectors(columns, times)
        answers = self.session.run(vectors)
        told = self._rules.passed(vectors, answers)
        return Scored(vectors, answers, told, (time.perf_counter() - began) * 1000)

    def records(
        self, lines: pl.DataFrame, scored: Scored, rows: NDArray[np.int64], sampled: NDArray[np.bool_],
        counts: Sequence[bool],
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return the records of `rows` as the topic `scores` has them.

        `sampled` says of each row whether it is of the even sample, `counts` whether somebody acts on it.
        """
        told = self.session.description
        vectors, answers = scored.vectors[rows], scored.answers[rows]
        names = [each.name for each in told.inputs]
        known = np.isfinite(vectors).tolist()
        given, outputs = vectors.astype(np.float64).tolist(), answers.astype(np.float64).tolist()
        scores = self.session.scores(answers).tolist()
        version = f"{told.name}/{told.version}"
        records = []
        chosen = lines.select([*KEYS, "event_time"])[rows].to_dicts()
        for row, line in enumerate(chosen):
            time_ms = line.pop("event_time")
            event_id = line["event_id"]
            records.append(
                {
                    "event_id": derived_id(version, event_id, time_ms, event_id),
                    "dealer_id": line["dealer_id"],
                    "model": told.name,
                    "model_version": told.version,
                    "subject_type": told.subject_type,
                    "subject_id": event_id,
                    "score": scores[row],
                    "features": {
                        name: value if there else None
                        for name, value, there in zip(names, given[row], known[row], strict=True)
                    },
                    "latency_ms": scored.latency_ms,
                    "shadow": not counts[row],
                    "outputs": dict(zip(told.outputs, outputs[row], strict=True)),
                    "entity": line,
                    "decided_at": self.decided_at,
                    "readings": [],
                    "sampled": bool(sampled[row]),
                    "cause_id": event_id,
                    "event_time": time_ms,
                }
            )
        self._read(records, vectors, answers, scored.told[rows])
        return records

    def _read(
        self, records: Sequence[dict[str, Any]], vectors: Vectors, answers: Vectors, told: NDArray[np.bool_]
    ) -> None:
        """Rules speak of a line once, so what they say of one below their threshold is of no use to anyone."""
        at = [row for row in np.flatnonzero(told).tolist() if not records[row]["shadow"]]
        if not at:
            return
        events = [
            (each["event_id"], each["dealer_id"], each["subject_id"], each["event_time"])
            for each in (records[row] for row in at)
        ]
        for row, readings in zip(at, self._rules.read(vectors[at], answers[at], events), strict=True):
            records[row]["readings"] = readings
