"""The recommend view: orders, stock and dealers, folded into what recommendations are made of.

A batch reads what it touches, adds to it, and writes it back with the position.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions

from connectors.registry import RegistryUnavailableError
from models.recommend.dealers import order_key
from models.recommend.decay import seconds_of
from models.recommend.folding import Changes, Folding
from models.recommend.records import Item, product_key
from models.recommend.settings import RecommendSettings
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.metrics import StageMeters
from streams.recommend.store import RecommendStore
from streams.views.view import Position, View

__all__ = ["RecommendView"]

_ORDERS, _INVENTORY, _DEALERS = "orders", "inventory", "dealers"


@dataclass
class _Batch:
    """What the records tell; an event time of the future counts as now."""

    behind: Position = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    stamps: list[int] = field(default_factory=list)
    newest_ms: int = 0
    unreadable: list[tuple[Any, Exception]] = field(default_factory=list)


class RecommendView(View):
    """Folds what dealers order; a line counts once among the last orders of its dealer.

    Outcomes that are counted: `folded`, `duplicate` (its order has the product already), `repeated` (the store
    holds it already), `tombstone`. Lines that cannot be read are Flink's dead letters, not this view's.

    Args:
        store: this view is its only writer.
        fetch_schema: schema of a registry id (`Registry.schema`).
    """

    name = "recommend-view"
    topics = (_ORDERS, _INVENTORY, _DEALERS)
    retried = (redis.exceptions.RedisError, RegistryUnavailableError)

    def __init__(
        self,
        store: RecommendStore,
        fetch_schema: Callable[[int], Any],
        settings: RecommendSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._clock = store, clock
        self._folding = Folding(store, (settings or RecommendSettings()).half_life_days)
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in self.topics}
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position held in Redis."""
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold messages; those that the store holds already change nothing."""
        try:
            batch = self._read(messages)
            written = self._folding.fold(batch.changes)
            self._count(folded=written.folded, duplicate=written.duplicate)
            self.refuse(batch.unreadable)
            self._store.commit(written, batch.behind)
        except BaseException:
            self._folding.forget()
            raise
        now_ms = self._clock() * 1000
        self._meters.freshness([max(now_ms - each, 0.0) / 1000 for each in batch.stamps])
        if batch.newest_ms:
            self._meters.event_time(batch.newest_ms)

    def _read(self, messages: Sequence[Any]) -> _Batch:
        batch = _Batch()
        held = self._store.held()
        now_ms = int(self._clock() * 1000)
        repeated = tombstones = 0
        for message in messages:
            place = message.topic(), message.partition()
            if message.offset() < held.get(place, 0):
                repeated += 1
                continue
            batch.behind[place] = message.offset() + 1
            if message.value() is None:
                tombstones += 1
                continue
            try:
                record = valid(place[0], self._decoders[place[0]].decode(message.value()))
            except ContractError as error:
                if place[0] == _ORDERS:
                    self._meters.count("refused")
                else:
                    batch.unreadable.append((message, error))
                continue
            at_s = seconds_of(min(record["event_time"], now_ms))
            self._sort(place[0], record, at_s, batch)
            batch.stamps.append(message.timestamp()[1])
        self._count(repeated=repeated, tombstone=tombstones)
        return batch

    def _sort(self, name: str, record: dict[str, Any], at_s: int, batch: _Batch) -> None:
        dealer = record["dealer_id"]
        if name == _ORDERS:
            product = product_key(record["product_id"])
            batch.changes.lines[dealer].append((order_key(record["order_id"]), product, at_s))
            batch.changes.names[product] = Item(record["product_id"], record["category"])
            batch.newest_ms = max(batch.newest_ms, record["event_time"])
        elif name == _INVENTORY:
            level = product_key(record["product_id"]), record["on_hand"], at_s
            batch.changes.levels[dealer].append(level)
        else:
            batch.changes.region(dealer, at_s, record["region"] or "")

    def _count(self, **outcomes: int) -> None:
        for outcome, records in outcomes.items():
            if records:
                self._meters.count(outcome, records)
