"""What every scorer of one version is made of, whether it scores entities or single events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.plan import Plan
from models.artifact import ArtifactError
from models.runtime import Session
from streams.scoring.readings import RuleReader

__all__ = ["About", "Version"]

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class About:
    """What a score is of, beside its numbers; `counts` says whether somebody acts on it."""

    event_id: str
    dealer_id: str
    subject_id: str
    entity: dict[str, str]
    cause_id: str
    event_time: int
    counts: bool


class Version:
    """One version of one model as the stream runs it.

    Args:
        session: loaded and warm.
        plan: the feature plan.
        shadow: whether it is the challenger, whose scores nobody acts on.
        decided_at: offset of the decision in model.lifecycle that put it there.
        share: of a challenger, the share of subjects that its scores count for (a canary's).

    Raises ArtifactError for a model of features that the plan has not.
    """

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        told = session.description
        self.session, self.shadow, self.decided_at, self.share = session, shadow, decided_at, share
        self.named = f"{told.name} {told.version}"
        self._have: dict[str, list[str]] = {}
        """The features of each view that it reads, in the plan's order."""
        for view, names in told.views.items():
            known = plan.views.get(view)
            have = self._have[view] = [] if known is None else [each.name for each in known.features]
            if missing := [name for name in names if name not in have]:
                raise ArtifactError(f"{self.named} reads {view}.{missing[0]}, which the feature plan has not")
        self._rules = RuleReader(session)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.session.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.session.version

    def _records(
        self, abouts: Sequence[About], vectors: Vectors, answers: Vectors, latency_ms: float
    ) -> list[dict[str, Any]]:
        """Return the scores as the topic `scores` has them, without readings."""
        told = self.session.description
        names = [each.name for each in told.inputs]
        known = np.isfinite(vectors).tolist()
        given, outputs = vectors.astype(np.float64).tolist(), answers.astype(np.float64).tolist()
        scores = self.session.scores(answers).tolist()
        return [
            {
                "event_id": about.event_id,
                "dealer_id": about.dealer_id,
                "model": told.name,
                "model_version": told.version,
                "subject_type": told.subject_type,
                "subject_id": about.subject_id,
                "score": scores[row],
                "features": {
                    name: value if there else None
                    for name, value, there in zip(names, given[row], known[row], strict=True)
                },
                "latency_ms": latency_ms,
                "shadow": not about.counts,
                "outputs": dict(zip(told.outputs, outputs[row], strict=True)),
                "entity": about.entity,
                "decided_at": self.decided_at,
                "readings": [],
                "cause_id": about.cause_id,
                "event_time": about.event_time,
            }
            for row, about in enumerate(abouts)
        ]

    def _read(
        self, records: Sequence[dict[str, Any]], rows: Iterable[int], vectors: Vectors, answers: Vectors
    ) -> None:
        """Let the rules speak of these rows of `records`, `vectors` and `answers`."""
        at = list(rows)
        if not at:
            return
        events = [
            (each["event_id"], each["dealer_id"], each["subject_id"], each["event_time"])
            for each in (records[row] for row in at)
        ]
        for row, readings in zip(at, self._rules.read(vectors[at], answers[at], events), strict=True):
            records[row]["readings"] = readings
