"""From entities as they were read to scores: one batch through one model. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.latest import Latest
from features.plan import Plan
from models.artifact import ArtifactError, Description
from models.canary import in_share
from models.inputs import EventField
from models.runtime import Session
from streams.scoring.scores import Scores
from streams.scoring.version import DEALER, Version

__all__ = ["Changes", "Scorer", "subjects_of"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Entities whose features changed: a column of each of their keys, and the ids of what says so."""

    keys: Mapping[str, Sequence[str]]
    causes: Sequence[str]

    def __len__(self) -> int:
        return len(self.causes)

    def chosen(self, rows: NDArray[np.int64]) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
        """Return the keys and causes of these rows, in ascending order."""
        if len(rows) == len(self):
            return self.keys, self.causes
        at = rows.tolist()
        keys = {name: [column[i] for i in at] for name, column in self.keys.items()}
        return keys, [self.causes[i] for i in at]


def subjects_of(keys: Mapping[str, Sequence[str]], order: Sequence[str]) -> list[str]:
    """Return the subjects' ids: the values of the keys, joined by `/`."""
    return list(map("/".join, zip(*(keys[name] for name in order), strict=True)))


class Scorer(Version):
    """One version of a model of entities.

    Raises ArtifactError for a model that cannot be run so: of features that the plan has not, of fields of
    single events, of no dealer.
    """

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        super().__init__(session, plan, shadow=shadow, decided_at=decided_at, share=share)
        told = session.description
        self.entity = told.entity
        if DEALER not in told.entity:
            raise ArtifactError(f"{self.named} scores {', '.join(told.entity)}, which has no dealer to tell")
        if any(isinstance(each, EventField) for each in told.inputs):
            raise ArtifactError(f"{self.named} reads fields of single events; the stream scores entities")
        self._columns = [f"{view}__{name}" for view, names in told.views.items() for name in names]
        self.triggers = tuple(view for view in told.views if set(plan.views[view].entity) == set(told.entity))
        if not self.triggers:
            raise ArtifactError(
                f"{self.named} reads no view of {', '.join(told.entity)}: nothing tells of a change"
            )

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether a model is about entities; those of single order lines are `streams.lines`'."""
        return not any(isinstance(each, EventField) for each in told.inputs)

    def score(
        self, changes: Changes, latest: Latest, bucket_ms: int, left: Set[str] = frozenset()
    ) -> tuple[Scores, int]:
        """Return the scores, and how many rows got none. `latest` has what the store holds of `changes`.

        `left` are subjects that a canary has answered for: there the champion's score is the shadow.

        A row gets none where the store has no feature of it at all, or the model's answer is no number: it is
        counted, and the rest goes on. Missing and infinite features are missing to the model, as in training.
        """
        began = time.perf_counter()
        columns = {name: latest.columns[name] for name in self._columns}
        nothing = np.logical_and.reduce([np.isnan(each) for each in columns.values()])
        rows = np.flatnonzero(latest.known & ~nothing)
        if len(rows) < len(changes):
            columns = {name: each[rows] for name, each in columns.items()}
        (keys, causes), times = changes.chosen(rows), latest.times[rows]
        vectors = self.session.vectors(columns | {name: keys[name] for name in self.entity}, times)
        answers = self.session.run(vectors)
        numbers = np.isfinite(answers)
        if not numbers.all():
            finite = numbers.all(axis=1)
            rows, vectors, answers = rows[finite], vectors[finite], answers[finite]
            (keys, causes), times = changes.chosen(rows), latest.times[rows]
        latency_ms = (time.perf_counter() - began) * 1000
        subjects = subjects_of(keys, self.entity)
        counts = self._counts(subjects, left)
        buckets = times // bucket_ms * bucket_ms
        scores = self._scores(
            rows, keys, subjects, causes, times, buckets, vectors, answers, latency_ms, counts
        )
        return scores, len(changes) - len(scores)

    def _counts(self, subjects: Sequence[str], left: Set[str]) -> NDArray[np.bool_]:
        """Whether somebody acts on the score of each subject."""
        if not self.shadow and not left:
            return np.ones(len(subjects), bool)
        if not self.shadow:
            return np.array([each not in left for each in subjects], bool)
        if self.share == 0:
            return np.zeros(len(subjects), bool)
        return np.array([in_share(self.model, each, self.share) for each in subjects], bool)
