"""Read features: one round trip for any number of entities, merged at read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.keys import entity_key, field, unwrap_bytes
from features.merge import MergedRow, merge
from features.plan import Plan

__all__ = ["FeatureReader"]


class FeatureReader:
    """Reads with a `redis.asyncio.Redis` whose answers are bytes."""

    def __init__(self, redis: Any, plan: Plan) -> None:
        self._redis, self._plan = redis, plan

    async def read(
        self, name: str, entities: Sequence[Mapping[str, str]], now_ms: int
    ) -> list[dict[str, MergedRow]]:
        """Return for each entity the merged row of each view of a feature service or view.

        Raises PlanError for an unknown name, CorruptBlobError for damaged tiles, and redis errors.
        """
        views = self._plan.select(name)
        async with self._redis.pipeline(transaction=False) as pipe:
            for entity in entities:
                for view in views:
                    pipe.hget(entity_key(view, entity, self._plan.project), field(view.name, "tiles"))
            found = iter(await pipe.execute())
        return [
            {
                view.name: merge(view, unwrap_bytes(blob) if (blob := next(found)) else None, now_ms)
                for view in views
            }
            for _ in entities
        ]
