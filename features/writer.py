"""Write tiles to the online store: guarded, atomic, with the position beside the data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from features.keys import entity_key, field, timestamp_proto, unwrap_bytes, value_proto
from features.plan import ViewPlan
from features.tiles import Tile, decode, encode

__all__ = ["FeatureWriter"]

_SCRIPT = """
for i = 2, #KEYS do
  local a = (i - 2) * 2
  redis.call('HSET', KEYS[i], ARGV[1], ARGV[4 + a], ARGV[2], ARGV[5 + a])
end
local at = 4 + (#KEYS - 1) * 2
for i = at, #ARGV, 2 do
  local old = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '-1')
  if tonumber(ARGV[i + 1]) > old then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return #KEYS - 1
"""

Entity = tuple[str, ...]


class FeatureWriter:
    """The only writer of one view. Applying an update twice equals applying it once; order does not matter.

    `write` raises redis errors; its batches of `batch` entities are atomic each, and the position moves with
    the last.
    """

    def __init__(
        self, redis: Any, view: ViewPlan, project: str, *, batch: int = 100, keep: int = 20_000
    ) -> None:
        self._redis, self._view, self._project = redis, view, project
        self._batch, self._keep = batch, keep
        self._script = redis.register_script(_SCRIPT)
        self._field, self._stamp = field(view.name, "tiles"), f"_ts:{view.name}".encode()
        self._position = f"dealeriq:position:{view.name}"
        self._cache: OrderedDict[Entity, dict[tuple[int, int], Tile]] = OrderedDict()

    def positions(self) -> dict[tuple[str, int], int]:
        """Return the next offset of each (topic, partition) that the store holds."""
        found = {}
        for name, value in self._redis.hgetall(self._position).items():
            topic, _, partition = name.decode().rpartition(":")
            found[topic, int(partition)] = int(value)
        return found

    def load(self, entities: Iterable[Entity]) -> None:
        """Fetch the stored tiles of entities that are not remembered, in one round trip."""
        missing = [each for each in entities if each not in self._cache]
        with self._redis.pipeline(transaction=False) as pipe:
            for each in missing:
                pipe.hget(self._key(each), self._field)
            for entity, value in zip(missing, pipe.execute(), strict=True):
                rows = decode(unwrap_bytes(value)).rows() if value else []
                self._cache[entity] = {(row.grain_s, row.hop_ms): row for row in rows}

    def write(self, updates: Mapping[Entity, Iterable[Tile]], positions: Mapping[tuple[str, int], int]) -> None:
        """Fold tiles into their entities and store them, then the positions."""
        self.load(updates)
        names = list(updates)
        groups = [names[i : i + self._batch] for i in range(0, len(names), self._batch)] or [[]]
        try:
            for group in groups:
                args: list[Any] = [self._field, self._stamp, b""]
                for entity in group:
                    args += self._fold(entity, updates[entity])
                if group is groups[-1]:
                    for (topic, partition), offset in positions.items():
                        args += [f"{topic}:{partition}", offset]
                self._script(keys=[self._position, *map(self._key, group)], args=args)
        except Exception:
            for entity in names:
                self._cache.pop(entity, None)
            raise
        while len(self._cache) > self._keep:
            self._cache.popitem(last=False)

    def _fold(self, entity: Entity, tiles: Iterable[Tile]) -> tuple[bytes, bytes]:
        kept = self._cache[entity]
        self._cache.move_to_end(entity)
        for tile in tiles:
            key = (tile.grain_s, tile.hop_ms)
            if key not in kept or _newer(tile, kept[key]):
                kept[key] = tile
        latest = max((tile.max_event_time for tile in kept.values()), default=0)
        for grain, keep in zip(self._view.grains_ms, self._view.retention_ms, strict=True):
            for key in [k for k in kept if k[0] * 1000 == grain and k[1] + grain <= latest - keep]:
                del kept[key]
        return value_proto(encode(kept.values())), timestamp_proto(latest)

    def _key(self, entity: Entity) -> bytes:
        return entity_key(self._view, dict(zip(self._view.entity, entity, strict=True)), self._project)


def _newer(new: Tile, old: Tile) -> bool:
    """A tile that folds more events, or reaches further in its source, is newer; equal ones change nothing."""
    return (new.n, new.max_event_time, new.positions) >= (old.n, old.max_event_time, old.positions)
