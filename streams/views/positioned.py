"""Keys of one view in Redis that change together with its position, in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from features.keys import position_key
from features.writer import StoreReplacedError

__all__ = ["PositionedStore", "read_positions"]


class PositionedStore:
    """Commits changes and the position behind them through a `redis.Redis` whose answers are bytes.

    Redis errors pass through. `name` is the view's, `project` the first part of every key.
    """

    def __init__(self, redis: Any, project: str, name: str) -> None:
        self.redis, self.project, self.name = redis, project, name
        self._position = position_key(project, name)
        self._known: dict[tuple[str, int], int] | None = None

    def positions(self) -> dict[tuple[str, int], int]:
        """Return the next offset of each (topic, partition) that the store holds, and mean this store."""
        self._known = self._read(self.redis)
        return dict(self._known)

    def commit_queued(self, queue: Callable[[Any], None], behind: Mapping[tuple[str, int], int]) -> None:
        """Run what `queue` puts into a pipeline and move the positions to `behind`, in one step; may repeat.

        Raises StoreReplacedError where the store does not hold the position that this process left there.
        """
        known = self.positions() if self._known is None else self._known
        target = known | dict(behind)
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(self._position)
            held = self._read(pipeline)
            if held != known:
                if held == target:  # the answer to the last try was lost on its way
                    self._known = target
                    return
                raise StoreReplacedError(
                    f"{self.name}: the store was emptied or replaced, or another process writes it"
                )
            pipeline.multi()
            queue(pipeline)
            if behind:
                pipeline.hset(
                    self._position,
                    mapping={f"{topic}:{part}": offset for (topic, part), offset in behind.items()},
                )
            pipeline.execute()
        self._known = target

    def _read(self, client: Any) -> dict[tuple[str, int], int]:
        return read_positions(client, self._position)


def read_positions(client: Any, key: str) -> dict[tuple[str, int], int]:
    """Return the positions in a hash of `topic:partition` to the next offset."""
    found = {}
    for name, value in client.hgetall(key).items():
        topic, _, partition = name.decode().rpartition(":")
        found[topic, int(partition)] = int(value)
    return found
