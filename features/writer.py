"""Write tiles to the online store: guarded, atomic, with the position beside the data."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
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
from features.rows import Layout, Packed, Rows, joined
from features.tiles import Tile, double_fields, pack, sketch_fields, stored
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
# Version and tiles of each key: one reply for any number of them.
_LOAD = """
local found = {}
for i = 1, #KEYS do
  local each = redis.call('HMGET', KEYS[i], ARGV[1], ARGV[2])
  found[2 * i - 1] = each[1]
  found[2 * i] = each[2]
end
return found
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


@dataclass(slots=True)
class _Stored:
    """What an entity's hash held when this writer last saw it."""

    key: bytes
    version: bytes
    rows: Rows
    size: int


@dataclass(frozen=True, slots=True)
class _Call:
    """One atomic call for a group of entities; `answer` where it is under way already."""

    group: list[Entity]
    version: bytes
    keys: list[Any]
    args: list[Any]
    tail: list[Any]
    answer: Future[list[int]] | None = None


class FeatureWriter:
    """Writes one view. Applying an update twice equals applying it once; order does not matter.

    Batches of `batch` entities are atomic each, one after another, and the position moves with the last. Each
    entity carries a version, so that a writer whose memory is old (a second process, a store that was emptied)
    folds again onto what is there and overwrites nothing it has not seen.

    Args:
        redis: a `redis.Redis` whose answers are bytes.
        view: what is written.
        project: Feast project, part of every key.
        batch: most entities of one atomic call.
        keep_bytes: about how much memory is spent on what entities held when last seen.
        partitions: how many the source topic has, as far as known. A row has a place for the position in each:
            were it to grow as they come, the same tiles would give other bytes in another order.
        clock: the wall clock, s since the epoch. Tiles fall out of retention by event time, but an event dated
            in the future does not push the present out.
    """

    def __init__(
        self,
        redis: Any,
        view: ViewPlan,
        project: str,
        *,
        batch: int = 50,
        keep_bytes: int = 16 << 20,
        partitions: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis, self._view, self._project = redis, view, project
        self._batch, self._keep_bytes, self._clock = batch, keep_bytes, clock
        self._script, self._load = redis.register_script(_SCRIPT), redis.register_script(_LOAD)
        self._names = joined((*double_fields(view), *sketch_fields(view)))
        self._layout = self._layout_of(partitions)
        self._limits = {
            grain // 1000: keep + grain for grain, keep in zip(view.grains_ms, view.retention_ms, strict=True)
        }
        self._field, self._stamp = field(view.name, "tiles"), f"_ts:{view.name}".encode()
        self._version = version_field(view.name)
        mine = secrets.token_hex(8).encode()
        self._versions = (b"%s:%d" % (mine, i) for i in count())
        self._position = position_key(project, view.name)
        self._identity_key = identity_key(project, view.name)
        self._identity: bytes | None = None
        self._cache: OrderedDict[Entity, _Stored] = OrderedDict()
        self._held = 0
        self._beside = ThreadPoolExecutor(1, "feature-writer")

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
        wanted = list(entities)
        missing = [each for each in wanted if each not in self._cache]
        if not missing:
            return
        keys = [self._key(each) for each in missing]
        found = self._load(keys=keys, args=[self._version, self._field])
        for entity, key, version, value in zip(missing, keys, found[::2], found[1::2], strict=True):
            packed = stored(self._view, unwrap_bytes(value)) if value else None
            if packed is not None and packed.layout.partitions > self._layout.partitions:
                self._widen(packed.layout.partitions)
                self.load(wanted)
                return
            rows = Rows(self._layout, self._limits)
            if packed is not None:
                packed = self._layout.fitted(packed)
                rows = Rows(self._layout, self._limits, packed.rows, packed.sketches)
            self._cache[entity] = _Stored(key, version or b"", rows, 0)
            self._weigh(self._cache[entity])

    def write(self, updates: Mapping[Entity, Iterable[Tile]], positions: Mapping[tuple[str, int], int]) -> None:
        """Fold tiles into their entities and store them, then the positions.

        Raises redis errors, CorruptBlobError, WriteConflictError, StoreReplacedError; it may be repeated.
        """
        tiles: list[Tile] = []
        places: dict[Entity, list[int]] = {}
        for entity, some in updates.items():
            start = len(tiles)
            tiles += some
            places[entity] = list(range(start, len(tiles)))
        layout = self._layout_of(max((len(tile.positions) for tile in tiles), default=0))
        self.write_packed(pack(layout, tiles), places, positions)

    def write_packed(
        self, packed: Packed, updates: Mapping[Entity, Sequence[int]], positions: Mapping[tuple[str, int], int]
    ) -> None:
        """Do what `write` does with tiles that are rows already: `updates` names each entity's."""
        if self._identity is None:
            self.positions()
        self._widen(packed.layout.partitions)
        names = list(updates)
        groups = [names[i : i + self._batch] for i in range(0, len(names), self._batch)] or [[]]
        tail = [each for (topic, part), offset in positions.items() for each in (f"{topic}:{part}", offset)]
        sent: _Call | None = None
        try:
            for group in groups:
                # The store works on a group while the next one is folded, and takes that only when it is done.
                call = self._folded(group, packed, updates, tail if group is groups[-1] else [])
                if sent is not None:
                    self._settle(sent, packed, updates)
                sent = replace(call, answer=self._beside.submit(self._call, call)) if len(groups) > 1 else call
            assert sent is not None
            self._settle(sent, packed, updates)
        except BaseException:
            if sent is not None and sent.answer is not None:
                wait([sent.answer])
            for entity in names:
                if (known := self._cache.pop(entity, None)) is not None:
                    self._held -= known.size
            raise
        while self._held > self._keep_bytes:
            self._held -= self._cache.popitem(last=False)[1].size

    def _folded(
        self, group: list[Entity], packed: Packed, updates: Mapping[Entity, Sequence[int]], tail: list[Any]
    ) -> _Call:
        """Fold a group's tiles into what is remembered of it, ready to be sent."""
        self.load(group)
        packed = self._layout.fitted(packed)
        version, now_ms = next(self._versions), int(self._clock() * 1000)
        args: list[Any] = [self._field, self._stamp, self._version, version, self._identity]
        for entity in group:
            args += self._fold(entity, packed, updates[entity], now_ms)
        keys = [self._position, self._identity_key, *(self._cache[entity].key for entity in group)]
        return _Call(group, version, keys, args + tail, tail)

    def _settle(self, call: _Call, packed: Packed, updates: Mapping[Entity, Sequence[int]]) -> None:
        """See a group stored: entities that someone else wrote in between are folded and sent again."""
        for _ in range(_ATTEMPTS):
            stale = self._call(call) if call.answer is None else call.answer.result()
            again = {call.group[i] for i in stale}
            for entity in call.group:
                if (known := self._cache.get(entity)) is None:
                    continue  # forgotten because another group's rows are wider
                if entity in again:
                    self._held -= self._cache.pop(entity).size
                else:
                    known.version = call.version
            if not again:
                return
            call = self._folded([each for each in call.group if each in again], packed, updates, call.tail)
        raise WriteConflictError(
            f"{self._view.name}: {len(call.group)} entities, such as {', '.join(call.group[0])}, changed under "
            f"{_ATTEMPTS} attempts to write them"
        )

    def _call(self, call: _Call) -> list[int]:
        try:
            found: list[int] = self._script(keys=call.keys, args=call.args)
        except ResponseError as refused:
            if "STOREREPLACED" not in str(refused):
                raise
            raise StoreReplacedError(
                f"{self._view.name}: the online store was emptied or replaced"
            ) from refused
        return found

    def _fold(
        self, entity: Entity, packed: Packed, places: Sequence[int], now_ms: int
    ) -> tuple[bytes, bytes, bytes]:
        known = self._cache[entity]
        self._cache.move_to_end(entity)
        rows = known.rows
        for i in places:
            rows.put(packed, i)
        latest = min(rows.latest, now_ms)
        rows.drop(latest)
        self._weigh(known)
        return known.version, value_proto(*rows.blob(self._names)), timestamp_proto(latest)

    def _weigh(self, known: _Stored) -> None:
        before, known.size = known.size, known.rows.size()
        self._held += known.size - before

    def _layout_of(self, partitions: int) -> Layout:
        return Layout.of(len(double_fields(self._view)), len(sketch_fields(self._view)), partitions)

    def _widen(self, partitions: int) -> None:
        """Have room for so many source partitions; what is remembered in narrower rows is forgotten."""
        if partitions > self._layout.partitions:
            self._layout = self._layout_of(partitions)
            self._cache.clear()
            self._held = 0

    def _key(self, entity: Entity) -> bytes:
        return entity_key(self._view, dict(zip(self._view.entity, entity, strict=True)), self._project)
