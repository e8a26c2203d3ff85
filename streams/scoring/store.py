"""What the scorer remembers, in Redis beside its position: the newest stretch of event time that was scored.

`<project>:scored:<model>`: hash of subject → start of the newest bucket scored, ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from features.keys import position_key
from streams.views.positioned import PositionedStore, read_positions

__all__ = ["ScoreStore"]


class ScoreStore(PositionedStore):
    """The buckets scored and the positions behind them; redis errors pass through."""

    def __init__(self, redis: Any, project: str, name: str = "score-view") -> None:
        super().__init__(redis, project, name)

    def scored(self, wanted: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
        """Return the newest bucket of each (model, subject) that was scored before; one round trip."""
        pipeline = self.redis.pipeline(transaction=False)
        asked = [(model, list(subjects)) for model, subjects in wanted.items() if subjects]
        for model, subjects in asked:
            pipeline.hmget(self._key(model), subjects)
        found = pipeline.execute() if asked else []
        return {
            (model, subject): int(value)
            for (model, subjects), values in zip(asked, found, strict=True)
            for subject, value in zip(subjects, values, strict=True)
            if value is not None
        }

    def commit(self, scored: Mapping[tuple[str, str], int], behind: Mapping[tuple[str, int], int]) -> None:
        """Remember buckets and move the positions, in one step; may repeat. Raises StoreReplacedError."""

        def queue(pipeline: Any) -> None:
            by_model: dict[str, dict[str, int]] = {}
            for (model, subject), bucket in scored.items():
                by_model.setdefault(model, {})[subject] = bucket
            for model, buckets in by_model.items():
                pipeline.hset(self._key(model), mapping=buckets)

        self.commit_queued(queue, behind)

    def readable(self, views: Iterable[str]) -> dict[tuple[str, int], int]:
        """Return how far the feature view has folded each tile topic: the next (topic, partition) offsets."""
        found: dict[tuple[str, int], int] = {}
        for view in views:
            found |= read_positions(self.redis, position_key(self.project, view))
        return found

    def _key(self, model: str) -> str:
        return f"{self.project}:scored:{model}"
