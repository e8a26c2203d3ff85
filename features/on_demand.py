"""What Feast's on-demand views run: the reader's merge over a column of entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.merge import merge
from features.plan import load

__all__ = ["columns"]

_PROBE = b"hello world"  # what Feast, at `apply`, gives as bytes to learn the types of a function's answers


def columns(view: str, tiles: Sequence[bytes | None], now_ms: Sequence[int]) -> dict[str, list[Any]]:
    """Return each feature's values, one an entity. `now_ms` may be one moment for all.

    Raises CorruptBlobError for damaged tiles and PlanError for a view that the compiled plan lacks.
    """
    plan = load()
    (plan_of,) = plan.select(view)
    if list(tiles) == [_PROBE]:
        return {each.name: [0 if each.dtype == "long" else 0.0] for each in plan_of.features}
    moments = list(now_ms) * (len(tiles) if len(now_ms) == 1 else 1)
    rows = [
        merge(plan_of, blob or None, int(now), plan.distinct_precision).values
        for blob, now in zip(tiles, moments, strict=True)
    ]
    return {each.name: [row[i] for row in rows] for i, each in enumerate(plan_of.features)}
