"""From conversations as they stand to scores: one batch through one version. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from features.plan import Plan
from models.artifact import ArtifactError, Description
from models.inputs import EventField, event_column
from models.leads import COEFFICIENTS, NAMES
from models.runtime import Session
from streams.scoring.scores import Scores
from streams.scoring.served import FollowedModels
from streams.scoring.version import Version

__all__ = ["STAGE", "SUBJECT", "Lead", "LeadModels", "LeadScorer"]

STAGE, SUBJECT = "lead-view", "lead"


class Lead(NamedTuple):
    """A conversation after one of its messages, `message_id`; `cause_id` is the record that brought it."""

    dealer_id: str
    conversation_id: str
    message_id: str
    cause_id: str
    event_time: int
    vector: tuple[float, ...]


class LeadScorer(Version):
    """One version of a model of leads. Raises ArtifactError for one that reads what a lead has not."""

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        super().__init__(session, plan, shadow=shadow, decided_at=decided_at, share=share)
        known = {event_column(each) for each in (*NAMES, *COEFFICIENTS)}
        for each in session.description.inputs:
            if missing := [name for name in each.columns() if name not in known]:
                raise ArtifactError(f"{self.named} reads {missing[0]}, which a lead has not")

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether a model is about leads."""
        return told.subject_type == SUBJECT and all(
            isinstance(each, EventField) or not each.columns() for each in told.inputs
        )

    def score(self, leads: Sequence[Lead], coefficients: Sequence[float]) -> Scores:
        """Return the scores of leads; the coefficients travel among the features."""
        began = time.perf_counter()
        columns: dict[str, Any] = {
            event_column(name): [each.vector[at] for each in leads] for at, name in enumerate(NAMES)
        }
        columns |= {
            event_column(name): [value] * len(leads)
            for name, value in zip(COEFFICIENTS, coefficients, strict=True)
        }
        times = np.array([each.event_time for each in leads], np.int64)
        vectors = self.session.vectors(columns, times)
        answers = self.session.run(vectors)
        latency_ms = (time.perf_counter() - began) * 1000
        conversations = [each.conversation_id for each in leads]
        keys = {"dealer_id": [each.dealer_id for each in leads], "conversation_id": conversations}
        return self._scores(
            np.arange(len(leads)), keys, conversations, [each.cause_id for each in leads], times, times,
            vectors, answers, latency_ms, np.full(len(leads), not self.shadow),
        )  # fmt: skip


class LeadModels(FollowedModels[LeadScorer]):
    """The models of leads."""

    kind = LeadScorer
