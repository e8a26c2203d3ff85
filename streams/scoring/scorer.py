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
from streams.scoring.readings import RuleReader

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


class Scorer:
    """One version of one model as the stream runs it.

    Args:
        session: loaded and warm.
        plan: the feature plan.
        shadow: whether it is the challenger, whose scores nobody acts on.
        decided_at: offset of the decision in model.lifecycle that put it there.
        share: of a challenger, the share of subjects that its scores count for (a canary's).

    Raises ArtifactError for a model that cannot be run in the stream: of features that the plan has not, of
    fields of single events, of no dealer.
    """

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        told = session.description
        self.session, self.shadow, self.decided_at, self.share = session, shadow, decided_at, share
        self.entity, self.views = told.entity, tuple(told.views)
        self._places: list[tuple[str, str, int]] = []
        what = f"{told.name} {told.version}"
        if _DEALER not in told.entity:
            raise ArtifactError(f"{what} scores {', '.join(told.entity)}, which has no dealer to tell")
        if any(isinstance(each, EventField) for each in told.inputs):
            raise ArtifactError(f"{what} reads fields of single events; the stream scores entities")
        for view, names in told.views.items():
            known = plan.views.get(view)
            have = [] if known is None else [each.name for each in known.features]
            if missing := [name for name in names if name not in have]:
                raise ArtifactError(f"{what} reads {view}.{missing[0]}, which the feature plan has not")
            self._places += [(f"{view}__{name}", view, have.index(name)) for name in names]
        self.triggers = tuple(view for view in told.views if set(plan.views[view].entity) == set(told.entity))
        if not self.triggers:
            raise ArtifactError(f"{what} reads no view of {', '.join(told.entity)}: nothing tells of a change")
        self._rules = RuleReader(session)

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether a model is about entities; those of single order lines are `streams.lines`'."""
        return not any(isinstance(each, EventField) for each in told.inputs)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.session.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.session.version

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
        subjects = [subject_of(changes[i].entity, self.entity) for i in chosen]
        counts = [self._counts(subject, left) for subject in subjects]
        records = self._records(
            [changes[i] for i in chosen], subjects, counts, times.tolist(), vectors, answers, bucket_ms
        )
        for record in records:
            record["latency_ms"] = latency_ms
        return records, len(changes) - len(records)

    def _counts(self, subject: str, left: Set[str]) -> bool:
        """Whether somebody acts on the score of a subject."""
        if self.shadow:
            return self.share > 0 and in_share(self.model, subject, self.share)
        return subject not in left

    def _records(
        self, changes: Sequence[Change], subjects: Sequence[str], counts: Sequence[bool], times: list[int],
        vectors: Any, answers: Any, bucket_ms: int,
    ) -> list[dict[str, Any]]:  # fmt: skip
        told = self.session.description
        scores = self.session.scores(answers).tolist()
        names = [each.name for each in told.inputs]
        known = np.isfinite(vectors)
        given = vectors.astype(np.float64).tolist()
        outputs = answers.astype(np.float64).tolist()
        records = []
        for row, (change, time_ms) in enumerate(zip(changes, times, strict=True)):
            subject = subjects[row]
            bucket = time_ms // bucket_ms * bucket_ms
            records.append(
                {
                    "event_id": derived_id(f"{told.name}/{told.version}", subject, bucket, change.cause_id),
                    "dealer_id": change.entity[_DEALER],
                    "model": told.name,
                    "model_version": told.version,
                    "subject_type": told.subject_type,
                    "subject_id": subject,
                    "score": scores[row],
                    "features": {
                        name: value if there else None
                        for name, value, there in zip(names, given[row], known[row].tolist(), strict=True)
                    },
                    "latency_ms": 0.0,
                    "shadow": not counts[row],
                    "outputs": dict(zip(told.outputs, outputs[row], strict=True)),
                    "entity": change.entity,
                    "decided_at": self.decided_at,
                    "readings": [],
                    "cause_id": change.cause_id,
                    "event_time": time_ms,
                }
            )
        if told.rules and any(counts):
            acting = np.flatnonzero(counts)
            acted = [records[row] for row in acting]
            events = [
                (each["event_id"], each["dealer_id"], each["subject_id"], each["event_time"]) for each in acted
            ]
            found = self._rules.read(vectors[acting], answers[acting], events)
            for record, readings in zip(acted, found, strict=True):
                record["readings"] = readings
        return records
