"""Features from the online store: one round trip a request, tiles merged at read, a merge never done twice."""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from dealeriq.http.multiplex import MultiplexedRedis
from dealeriq.http.selection import Catalogue, Entity, Selection
from dealeriq.http.source import FeatureSource
from features.keys import clock_key, entity_key, field, position_key, unwrap_bytes, version_field
from features.merge import MergedRow, Status, merge
from features.plan import Plan, ViewPlan

__all__ = ["StoredFeatures"]


@dataclass(slots=True)
class _Merged:
    """A merged row as JSON, true for tiles of this version and for moments in [since_ms, until_ms)."""

    version: bytes | None
    since_ms: int
    until_ms: int
    features: bytes
    row: MergedRow


class StoredFeatures(FeatureSource):
    """Reads what the feature view wrote.

    A merged row is a pure function of the tiles and the hop that holds the clock, so it is kept and given again
    while the tiles' version in the store is the same and the clock stays in its hop: such a read fetches the
    version alone. What is answered is always what the store holds now.

    Args:
        url: address of Redis, with credentials.
        plan: the compiled feature plan.
        timeout: seconds to wait for Redis.
        context: TLS context, for `rediss://`.
        keep: most merged rows to keep in memory.
    """

    def __init__(
        self,
        url: str,
        plan: Plan,
        *,
        timeout: float = 2.0,
        context: ssl.SSLContext | None = None,
        keep: int = 20_000,
    ) -> None:
        self.catalogue = Catalogue(plan)
        self.redis = MultiplexedRedis(url, timeout=timeout, context=context)
        self._plan, self._keep = plan, keep
        self._fields = {name: (field(name, "tiles"), version_field(name)) for name in plan.views}
        self._kept: OrderedDict[tuple[str, bytes], _Merged] = OrderedDict()

    async def start(self) -> None:
        """Connect; retried in the background where Redis is down."""
        await self.redis.start()

    async def close(self) -> None:
        """Close the connection."""
        await self.redis.close()

    async def rows(
        self, selection: Selection, entities: Sequence[Entity], at_ms: int, detail: bool
    ) -> Sequence[bytes]:
        """One JSON fragment an entity; raises StoreUnavailableError, CorruptBlobError."""
        views = [self._plan.views[name] for name in selection.views]
        names = [
            (view, entity_key(view, entity, self._plan.project))  # type: ignore[arg-type]
            for entity in entities
            for view in views
        ]
        merged = await self._merged(names, at_ms)
        width = len(views)
        return [
            _fragment(selection, views, merged[at : at + width], detail) for at in range(0, len(merged), width)
        ]

    async def event_time_ms(self) -> int | None:
        """The latest event time that the feature view has seen."""
        value = await self.redis.call("GET", clock_key(self._plan.project))
        return int(value) if value else None

    async def positions(self) -> dict[str, dict[str, int]]:
        """The positions that stand beside the data of each view."""
        names = list(self._plan.views)
        replies = await self.redis.run([("HGETALL", position_key(self._plan.project, name)) for name in names])
        found = {}
        for name, flat in zip(names, replies, strict=True):
            if flat:
                pairs = zip(flat[::2], flat[1::2], strict=True)
                found[name] = {key.decode(): int(offset) for key, offset in pairs}
        return found

    async def facts(self) -> dict[str, Any]:
        """Where the store is and how long it takes to answer."""
        started = time.perf_counter()
        await self.redis.call("PING")
        delay = round((time.perf_counter() - started) * 1000, 3)
        return {"reachable": True, "address": self.redis.address, "delay_ms": delay}

    async def _merged(self, names: Sequence[tuple[ViewPlan, bytes]], at_ms: int) -> list[_Merged]:
        """A merged row of each (view, key): one round trip, and a second where a kept row's tiles changed."""
        kept_rows, kept = [], self._kept
        commands: list[tuple[bytes, ...]] = []
        for view, key in names:
            one = kept.get((view.name, key))
            if one is not None and not one.since_ms <= at_ms < one.until_ms:
                one = None
            kept_rows.append(one)
            tiles, version = self._fields[view.name]
            commands.append((b"HGET", key, version) if one else (b"HMGET", key, version, tiles))
        replies = await self.redis.run(commands)
        again = [i for i, one in enumerate(kept_rows) if one is not None and one.version != replies[i]]
        if again:
            fields = self._fields
            fetched = await self.redis.run(
                [(b"HMGET", names[i][1], *reversed(fields[names[i][0].name])) for i in again]
            )
            for i, reply in zip(again, fetched, strict=True):
                kept_rows[i], replies[i] = None, reply
        return [
            one if one is not None else self._merge(view, key, reply, at_ms)
            for one, (view, key), reply in zip(kept_rows, names, replies, strict=True)
        ]

    def _merge(self, view: ViewPlan, key: bytes, reply: Sequence[bytes | None], at_ms: int) -> _Merged:
        version, stored = reply
        row = merge(
            view, None if stored is None else unwrap_bytes(stored), at_ms, self._plan.distinct_precision
        )
        values = {feature.name: value for feature, value in zip(view.features, row.values, strict=True)}
        # A stale row may have turned stale within this hop: it is not given to an earlier moment.
        since = (
            at_ms if row.statuses and row.statuses[0] is Status.STALE else at_ms // view.hop_ms * view.hop_ms
        )
        merged = _Merged(version, since, row.valid_until_ms, orjson.dumps(values), row)
        # Unknown entities are cheap, and anybody can invent any number of them. Tiles without a version were
        # not written by our writer: nothing would tell that they changed.
        if stored is not None and version is not None:
            name = (view.name, key)
            self._kept[name] = merged
            self._kept.move_to_end(name)
            if len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return merged


def _fragment(
    selection: Selection, views: Sequence[ViewPlan], merged: Sequence[_Merged], detail: bool
) -> bytes:
    chosen = selection.features
    if chosen is None and not detail:
        parts = b",".join(
            b'"%b":%b' % (v.name.encode(), m.features) for v, m in zip(views, merged, strict=True)
        )
        return b'"features":{%b}' % parts
    answer: dict[str, Any] = {"features": {}}
    if detail:
        answer |= {"statuses": {}, "event_times": {}}
    for view, one in zip(views, merged, strict=True):
        wanted = None if chosen is None else chosen[view.name]
        answer["features"][view.name] = {
            feature.name: value
            for feature, value in zip(view.features, one.row.values, strict=True)
            if wanted is None or feature.name in wanted
        }
        if detail:
            answer["statuses"][view.name] = {
                feature.name: status.name
                for feature, status in zip(view.features, one.row.statuses, strict=True)
                if wanted is None or feature.name in wanted
            }
            answer["event_times"][view.name] = one.row.event_time_ms
    return orjson.dumps(answer)[1:-1]
