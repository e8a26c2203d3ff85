"""Write tiles to the online store: guarded, atomic, with the position beside the data."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from redis.exceptions import ResponseError

from features.keys import (
    entity_key,
    field,
    identity_key,
    position_key,
    timestamp_proto,
    unwrap_bytes,
    value_proto,
    version_field,
)
from features.plan import ViewPlan
from features.tiles import Tile, align, decode, encode
from schemas.errors import DealerIQError

__all__ = ["FeatureWriter", "StoreReplacedError", "WriteConflictError"]

# KEYS: positions, the store's identity, then entities. ARGV: field of the tiles, field of the time, field of
# the version, new version, identity; for each entity the version it was folded from, tiles, time; then names
# and values of positions. Entities that someone else wrote in between are left alone and their numbers
# returned; positions move only when there are none. A store other than the one read from is refused.
_SCRIPT = """
if redis.call('GET', KEYS[2]) ~= ARGV[5] then return redis.error_reply('STOREREPLACED') end
local stale = {}
for i = 3, #KEYS do
  local a = 6 + (i - 3) * 3
  if (redis.call('HGET', KEYS[i], ARGV[3]) or '') == ARGV[a] then
    redis.call('HSET', KEYS[i], ARGV[1], ARGV[a + 1], ARGV[2], ARGV[a + 2], ARGV[3], ARGV[4])
  else
    stale[#stale + 1] = i - 3
  end
end
if #stale > 0 then return stale end
for i = 6 + (#KEYS - 2) * 3, #ARGV, 2 do
  local old = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '-1')
  if tonumber(ARGV[i + 1]) > old then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return stale
"""
_ATTEMPTS = 20

Entity = tuple[str, ...]


class WriteConflictError(DealerIQError):
    """Another process keeps writing the same entities of a feature view."""

    remedy = "Run one feature view process for each view; stop the other one."
    exit_code = 7


class StoreReplacedError(DealerIQError):
    """The online store is not the one that this writer began with: it was emptied, restored or exchanged."""

    remedy = (
        "Start the feature view again (its supervisor does): it goes on from the position that the store holds."
    )
    exit_code = 7


@dataclass
class _Stored:
    """What an entity's hash held when this writer last saw it."""

    version: bytes
    tiles: dict[tuple[int, int], Tile]


class FeatureWriter:
    """Writes one view. Applying an update twice equals applying it once; order does not matter.

    Batches of `batch` entities are atomic each, and the position moves with the last. Each entity carries a
    version, so that a writer whose memory is old (a second process, a store that was emptied) folds again onto
    what is there and overwrites nothing it has not seen.

    Args:
        redis: a `redis.Redis` whose answers are bytes.
        view: what is written.
        project: Feast project, part of every key.
        batch: most entities of one atomic call.
        keep: most entities remembered between calls.
        clock: the wall clock, s since the epoch. Tiles fall out of retention by event time, but an event dated
            in the future does not push the present out.
    """

    def __init__(
        self,
        redis: Any,
        view: ViewPlan,
        project: str,
        *,
        batch: int = 100,
        keep: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis, self._view, self._project = redis, view, project
        self._batch, self._keep, self._clock = batch, keep, clock
        self._script = redis.register_script(_SCRIPT)
        self._field, self._stamp = field(view.name, "tiles"), f"_ts:{view.name}".encode()
        self._version = version_field(view.name)
        self._versions = (b"%s:%d" % (secrets.token_hex(8).encode(), i) for i in count())
        self._position = position_key(project, view.name)
        self._identity_key = identity_key(project, view.name)
        self._identity: bytes | None = None
        self._cache: OrderedDict[Entity, _Stored] = OrderedDict()

    def positions(self) -> dict[tuple[str, int], int]:
        """Return the next offset of each (topic, partition) that the store holds, and mean this store."""
        self._redis.set(self._identity_key, secrets.token_hex(16), nx=True)
        self._identity = self._redis.get(self._identity_key)
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
                pipe.hmget(self._key(each), self._field, self._version)
            for entity, (value, version) in zip(missing, pipe.execute(), strict=True):
                rows = align(self._view, decode(unwrap_bytes(value))).rows() if value else []
                self._cache[entity] = _Stored(version or b"", {(row.grain_s, row.hop_ms): row for row in rows})

    def write(self, updates: Mapping[Entity, Iterable[Tile]], positions: Mapping[tuple[str, int], int]) -> None:
        """Fold tiles into their entities and store them, then the positions.

        Raises redis errors, CorruptBlobError, WriteConflictError, StoreReplacedError; it may be repeated.
        """
        if self._identity is None:
            self.positions()
        updates = {entity: list(tiles) for entity, tiles in updates.items()}
        self.load(updates)
        names = list(updates)
        groups = [names[i : i + self._batch] for i in range(0, len(names), self._batch)] or [[]]
        try:
            for group in groups:
                self._write_group(group, updates, positions if group is groups[-1] else {})
        except Exception:
            for entity in names:
                self._cache.pop(entity, None)
            raise
        while len(self._cache) > self._keep:
            self._cache.popitem(last=False)

    def _write_group(
        self,
        group: list[Entity],
        updates: Mapping[Entity, Iterable[Tile]],
        positions: Mapping[tuple[str, int], int],
    ) -> None:
        tail = [each for (topic, part), offset in positions.items() for each in (f"{topic}:{part}", offset)]
        for _ in range(_ATTEMPTS):
            version = next(self._versions)
            args: list[Any] = [self._field, self._stamp, self._version, version, self._identity]
            for entity in group:
                args += self._fold(entity, updates[entity])
            stale = {group[i] for i in self._call([*map(self._key, group)], args + tail)}
            for entity in group:
                if entity in stale:
                    del self._cache[entity]
                else:
                    self._cache[entity].version = version
            if not stale:
                return
            group = [entity for entity in group if entity in stale]
            self.load(group)
        raise WriteConflictError(
            f"{self._view.name}: {len(group)} entities, such as {', '.join(group[0])}, changed under "
            f"{_ATTEMPTS} attempts to write them"
        )

    def _call(self, keys: list[bytes], args: list[Any]) -> list[int]:
        try:
            found: list[int] = self._script(keys=[self._position, self._identity_key, *keys], args=args)
        except ResponseError as refused:
            if "STOREREPLACED" not in str(refused):
                raise
            raise StoreReplacedError(
                f"{self._view.name}: the online store was emptied or replaced"
            ) from refused
        return found

    def _fold(self, entity: Entity, tiles: Iterable[Tile]) -> tuple[bytes, bytes, bytes]:
        stored = self._cache[entity]
        kept = stored.tiles
        self._cache.move_to_end(entity)
        for tile in tiles:
            key = (tile.grain_s, tile.hop_ms)
            if key not in kept or _newer(tile, kept[key]):
                kept[key] = tile
        latest = max((tile.max_event_time for tile in kept.values()), default=0)
        latest = min(latest, int(self._clock() * 1000))
        oldest = {
            grain // 1000: latest - keep - grain
            for grain, keep in zip(self._view.grains_ms, self._view.retention_ms, strict=True)
        }
        for key in [key for key in kept if key[1] <= oldest.get(key[0], key[1])]:  # a grain of no plan goes too
            del kept[key]
        return stored.version, value_proto(encode(kept.values(), self._view)), timestamp_proto(latest)

    def _key(self, entity: Entity) -> bytes:
        return entity_key(self._view, dict(zip(self._view.entity, entity, strict=True)), self._project)


def _newer(new: Tile, old: Tile) -> bool:
    """A tile that folds more events, or reaches further in its source, is newer; equal ones change nothing."""
    return (new.n, new.max_event_time, new.positions) >= (old.n, old.max_event_time, old.positions)
