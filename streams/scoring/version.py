"""What every scorer of one version is made of, whether it scores entities or single events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.plan import Plan
from models.artifact import ArtifactError
from models.runtime import Session
from schemas.derived_ids import derived_ids
from streams.scoring.readings import Events, Readings, RuleReader
from streams.scoring.scores import Scores, ScoreWriter

__all__ = ["DEALER", "Version"]

DEALER = "dealer_id"

Bools = NDArray[np.bool_]
Longs = NDArray[np.int64]
Vectors = NDArray[np.float32]


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
        self.views: Mapping[str, Sequence[str]] = told.views
        self.named = f"{told.name} {told.version}"
        for view, names in told.views.items():
            known = plan.views.get(view)
            have = set() if known is None else {each.name for each in known.features}
            if missing := [name for name in names if name not in have]:
                raise ArtifactError(f"{self.named} reads {view}.{missing[0]}, which the feature plan has not")
        self._rules = RuleReader(session)
        self._writer = ScoreWriter(told, decided_at)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.session.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.session.version

    def messages(self, scores: Scores, schema_id: int) -> list[bytes]:
        """Return the version's scores as messages of the topic `scores`; `schema_id` is the registry's."""
        return self._writer.write(scores, schema_id)

    def _scores(
        self, rows: Longs, keys: Mapping[str, Sequence[str]], subjects: Sequence[str], causes: Sequence[str],
        times: Longs, buckets: Longs, vectors: Vectors, answers: Vectors, latency_ms: float, counts: Bools,
        sampled: Bools | None = None, spoken: Bools | None = None,
        read: Callable[[Events, Longs], Readings] | None = None,
    ) -> Scores:  # fmt: skip
        """Return the scores of some rows. `buckets` are the times that their ids are made of, `spoken` says
        which of those that count the rules may speak of (all), `read` reads others than the model's own rules.
        """
        ids = derived_ids(f"{self.model}/{self.version}", subjects, buckets, causes)
        asked = counts if spoken is None else counts & spoken
        events = Events(ids, keys[DEALER], subjects, times)
        at = np.flatnonzero(asked)
        readings = self._rules.read(vectors, answers, events, at) if read is None else read(events, at)
        if sampled is None:
            sampled = np.ones(len(rows), bool)
        return Scores(
            rows, ids, keys, subjects, causes, times, counts, sampled, vectors, answers, latency_ms, readings
        )
