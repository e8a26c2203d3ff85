"""What the scorer remembers, in Redis beside its position: the newest stretch of event time that was scored.

`<project>:scored:<model>`: hash of subject → start of the newest bucket scored, ms since the epoch.
`<project>:swept`: hash of model → offset in `model.lifecycle` of the champion that has scored everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    def has_scored(self, model: str) -> bool:
        """Return whether anybody was scored by a model."""
        return bool(self.redis.exists(self._key(model)))

    def subjects(self, model: str, at_once: int) -> Iterator[list[str]]:
        """Yield every subject that a model has scored, about `at_once` at a time; one may come twice."""
        cursor = -1
        while cursor:
            cursor, found = self.redis.hscan(self._key(model), max(cursor, 0), count=at_once)
            names = [each.decode() for each in found]
            for at in range(0, len(names), at_once):  # a small hash comes whole, however large
                yield names[at : at + at_once]

    def swept(self) -> dict[str, int]:
        """Return, by model, the decision whose champion has scored everybody."""
        return {name.decode(): int(at) for name, at in self.redis.hgetall(self._swept).items()}

    def mark_swept(self, model: str, decided_at: int) -> None:
        """Remember that the champion of a decision has scored everybody."""
        self.redis.hset(self._swept, model, str(decided_at))

    def readable(self, views: Iterable[str]) -> dict[tuple[str, int], int]:
        """Return how far the feature view has folded each tile topic: the next (topic, partition) offsets."""
        found: dict[tuple[str, int], int] = {}
        for view in views:
            found |= read_positions(self.redis, position_key(self.project, view))
        return found

    @property
    def _swept(self) -> str:
        return f"{self.project}:swept"

    def _key(self, model: str) -> str:
        return f"{self.project}:scored:{model}"
