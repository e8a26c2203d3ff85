"""Insights in Redis, for reading.

- `<project>:insights:<dealer>`: a Redis stream; an entry's id is `<offset>-1`, its `v` the insight as JSON
- `<project>:insight:<event_id>`: `<offset> <dealer>`; expires

All insights of a dealer lie in one partition, so the offset orders them: it is the cursor that readers resume
after. It never changes, however often the view is filled again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from streams.views.positioned import PositionedStore

__all__ = ["Entry", "InsightStore", "entry_id", "stream_key"]


class Entry(NamedTuple):
    """One insight: its dealer, offset and id, and what readers get."""

    dealer_id: str
    offset: int
    event_id: str
    body: bytes


def stream_key(project: str, dealer_id: str) -> str:
    """Return the key of a dealer's stream."""
    return f"{project}:insights:{dealer_id}"


def entry_id(offset: int) -> str:
    """Return the id of a stream's entry; 0-0 is none in Redis, so every one ends in -1."""
    return f"{offset}-1"


class InsightStore(PositionedStore):
    """Writes insights and the position behind them; redis errors pass through.

    `keep` are the newest of a dealer that stay, `keep_days` how long one is found by its id.
    """

    def __init__(self, redis: Any, project: str, *, keep: int, keep_days: float) -> None:
        super().__init__(redis, project, "insight-view")
        self._keep, self._keep_ms = keep, max(1_000, round(keep_days * 86_400_000))

    def known(self, ids: Sequence[str]) -> list[int | None]:
        """Return the offset of each insight that is held already, by its id."""
        found = self.redis.mget([self._id_key(each) for each in ids]) if ids else []
        return [None if value is None else int(value.partition(b" ")[0]) for value in found]

    def commit(self, entries: Sequence[Entry], behind: Mapping[tuple[str, int], int]) -> None:
        """Append insights and move the positions, in one step; may repeat. Raises StoreReplacedError."""

        def queue(pipeline: Any) -> None:
            for each in entries:
                pipeline.xadd(
                    stream_key(self.project, each.dealer_id),
                    {"v": each.body},
                    id=entry_id(each.offset),
                    maxlen=self._keep,
                    approximate=False,
                )
                pipeline.set(self._id_key(each.event_id), f"{each.offset} {each.dealer_id}", px=self._keep_ms)

        self.commit_queued(queue, behind)

    def find(self, event_id: str) -> bytes | None:
        """Return an insight by its id, as JSON; None where it is not held (any more)."""
        place = self.redis.get(self._id_key(event_id))
        if place is None:
            return None
        offset, _, dealer = place.decode().partition(" ")
        at = entry_id(int(offset))
        found = self.redis.xrange(stream_key(self.project, dealer), at, at)
        return bytes(found[0][1][b"v"]) if found else None

    def _id_key(self, event_id: str) -> str:
        return f"{self.project}:insight:{event_id}"
