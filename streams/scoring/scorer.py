"""From entities as they were read to scores: one batch through one model. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.latest import Moment
from features.plan import Plan
from models.artifact import ArtifactError, Description
from models.canary import in_share
from models.inputs import EventField
from models.runtime import Session
from schemas.ids import derived_id
from streams.scoring.version import About, Version

__all__ = ["Change", "Scorer", "subject_of"]

_DEALER = "dealer_id"


@dataclass(frozen=True, slots=True)
class Change:
    """An entity whose features changed: its keys, and the record that says so."""

    entity: dict[str, str]
    cause_id: str


def subject_of(entity: dict[str, str], order: Sequence[str]) -> str:
    """Return the subject's id: the values of the keys, joined by `/`."""
    return "/".join(entity[name] for name in order)


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
        self.entity, self.views = told.entity, tuple(told.views)
        if _DEALER not in told.entity:
            raise ArtifactError(f"{self.named} scores {', '.join(told.entity)}, which has no dealer to tell")
        if any(isinstance(each, EventField) for each in told.inputs):
            raise ArtifactError(f"{self.named} reads fields of single events; the stream scores entities")
        self._places = [
            (f"{view}__{name}", view, self._have[view].index(name))
            for view, names in told.views.items()
            for name in names
        ]
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
        self,
        changes: Sequence[Change],
        moments: Sequence[Moment],
        bucket_ms: int,
        left: Set[str] = frozenset(),
    ) -> tuple[list[dict[str, Any]], int]:
        """Return the scores as the topic `scores` has them, and how many rows got none.

        `left` are subjects that a canary has answered for: there the champion's score is the shadow.

        A row gets none where the store has no feature of it at all, or the model's answer is no number: it is
        counted, and the rest goes on. Missing and infinite features are missing to the model, as in training.
        """
        began = time.perf_counter()
        chosen = [
            i for i, each in enumerate(moments)
            if each.time_ms is not None
            and any(each.rows[view].values[at] is not None for _, view, at in self._places)
        ]  # fmt: skip
        if not chosen:
            return [], len(changes)
        times = np.array([moments[i].time_ms for i in chosen], np.int64)
        columns: dict[str, Any] = {
            column: [moments[i].rows[view].values[at] for i in chosen] for column, view, at in self._places
        }
        for key in self.entity:
            columns[key] = [changes[i].entity[key] for i in chosen]
        vectors = self.session.vectors(columns, times)
        answers = self.session.run(vectors)
        finite = np.isfinite(answers).all(axis=1)
        if not finite.all():
            kept = np.flatnonzero(finite)
            chosen, times = [chosen[i] for i in kept], times[kept]
            vectors, answers = vectors[kept], answers[kept]
        latency_ms = (time.perf_counter() - began) * 1000
        prefix = f"{self.model}/{self.version}"
        abouts = []
        for i, time_ms in zip(chosen, times.tolist(), strict=True):
            change = changes[i]
            subject = subject_of(change.entity, self.entity)
            event_id = derived_id(prefix, subject, time_ms // bucket_ms * bucket_ms, change.cause_id)
            counts = self._counts(subject, left)
            dealer = change.entity[_DEALER]
            abouts.append(About(event_id, dealer, subject, change.entity, change.cause_id, time_ms, counts))
        records = self._records(abouts, vectors, answers, latency_ms)
        self._read(records, (row for row, each in enumerate(abouts) if each.counts), vectors, answers)
        return records, len(changes) - len(records)

    def _counts(self, subject: str, left: Set[str]) -> bool:
        """Whether somebody acts on the score of a subject."""
        if self.shadow:
            return self.share > 0 and in_share(self.model, subject, self.share)
        return subject not in left
