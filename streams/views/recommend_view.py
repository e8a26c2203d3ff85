"""The recommend view: orders, stock and dealers, folded into what recommendations are made of.

A batch reads what it touches, adds to it, and writes it back with the position. The dealers' own state is kept
in this process, too, for a batch touches most of them again.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis.exceptions

from connectors.registry import RegistryUnavailableError
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.metrics import StageMeters
from streams.recommend.dealers import Baskets, Known, order_key
from streams.recommend.decay import Decay, seconds_of
from streams.recommend.fold import Counts, fold, merged_list, raised_list
from streams.recommend.records import Item, Items, product_key
from streams.recommend.settings import RecommendSettings
from streams.recommend.store import RecommendStore, Written
from streams.views.view import Position, View

__all__ = ["RecommendView"]

_ORDERS, _INVENTORY, _DEALERS = "orders", "inventory", "dealers"
_LISTED = 256  # entries of a list of the most popular
_DEALERS_KEPT = 2_000


@dataclass
class _Dealer:
    known: Known
    baskets: Baskets
    region_s: int
    region: str


@dataclass
class _Batch:
    """Records by dealer, in the log's order; an event time of the future counts as now."""

    behind: Position = field(default_factory=dict)
    lines: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    levels: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    regions: dict[str, tuple[int, str]] = field(default_factory=dict)
    names: dict[int, Item] = field(default_factory=dict)
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
        self._decay = Decay((settings or RecommendSettings()).half_life_days)
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in self.topics}
        self._dealers: OrderedDict[str, _Dealer] = OrderedDict()
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position held in Redis."""
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold messages; those that the store holds already change nothing."""
        try:
            batch = self._read(messages)
            dealers = self._look({*batch.lines, *batch.levels, *batch.regions})
            written = self._fold(batch, dealers)
            self.refuse(batch.unreadable)
            self._store.commit(written, batch.behind)
        except BaseException:
            self._dealers.clear()  # they may be ahead of the store
            raise
        while len(self._dealers) > _DEALERS_KEPT:
            self._dealers.popitem(last=False)
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
            batch.lines[dealer].append((order_key(record["order_id"]), product, at_s))
            batch.names[product] = Item(record["product_id"], record["category"])
            batch.newest_ms = max(batch.newest_ms, record["event_time"])
        elif name == _INVENTORY:
            level = product_key(record["product_id"]), record["on_hand"], at_s
            batch.levels[dealer].append(level)
        elif at_s >= batch.regions.get(dealer, (0, ""))[0]:
            batch.regions[dealer] = at_s, record["region"] or ""

    def _look(self, ids: Iterable[str]) -> Mapping[str, _Dealer]:
        wanted = sorted(ids)
        missing = [each for each in wanted if each not in self._dealers]
        for dealer, (known, orders, region) in zip(missing, self._store.dealers(missing), strict=True):
            at, _, name = (region or b"0 ").decode().partition(" ")
            self._dealers[dealer] = _Dealer(Known(known), Baskets(orders), int(at), name)
        for each in wanted:
            self._dealers.move_to_end(each)
        return {each: self._dealers[each] for each in wanted}

    def _fold(self, batch: _Batch, dealers: Mapping[str, _Dealer]) -> Written:
        regions = {}
        for dealer, (at_s, region) in batch.regions.items():
            each = dealers[dealer]
            if at_s >= each.region_s:
                each.region_s, each.region = at_s, region
                regions[dealer] = f"{at_s} {region}".encode()
        counts = Counts()
        in_region: dict[str, dict[int, list[int]]] = {}
        for dealer, lines in batch.lines.items():
            self._order(dealers[dealer], lines, counts, in_region)
        self._count(
            folded=len(counts.orders),
            duplicate=sum(map(len, batch.lines.values())) - len(counts.orders),
        )
        for dealer, levels in batch.levels.items():
            dealers[dealer].known.level(levels)
        known = [(dealer, *dealers[dealer].known.take()) for dealer in sorted({*batch.lines, *batch.levels})]
        written = Written(
            known=[each for each in known if each[1]],
            orders={dealer: dealers[dealer].baskets.pack() for dealer in batch.lines},
            regions=regions,
        )
        if counts.orders:
            products = np.unique(np.array([product for product, _ in counts.orders], np.uint64))
            touched = np.unique(np.concatenate([products, np.array(counts.others, np.uint64)]))
            items = self._store.items(touched)
            for row, product in enumerate(touched.tolist()):
                if product in batch.names:
                    items.tails[row] = batch.names[product].pack()
            fold(items, counts, self._decay)
            written.items, written.lists = items, self._listed(items, products, in_region)
        return written

    def _order(
        self,
        dealer: _Dealer,
        lines: Sequence[tuple[int, int, int]],
        counts: Counts,
        in_region: dict[str, dict[int, list[int]]],
    ) -> None:
        once = []
        region = in_region.setdefault(dealer.region, defaultdict(list)) if dealer.region else None
        for order, product, at_s in lines:
            others = dealer.baskets.add(order, product)
            if others is None:
                continue
            counts.orders.append((product, at_s))
            counts.pair(product, others, at_s)
            once.append((product, at_s))
            if region is not None:
                region[product].append(at_s)
        counts.uptake += dealer.known.order(once)

    def _listed(
        self, items: Items, ordered: Any, in_region: Mapping[str, Mapping[int, list[int]]]
    ) -> dict[str, bytes]:
        rows = items.place(ordered)
        by_category: dict[str, list[int]] = defaultdict(list)
        for row in rows.tolist():
            by_category[items.name(row).category].append(row)
        places = {"uptake": rows, "orders": rows}
        places |= {f"category:{name}": np.array(each) for name, each in by_category.items()}
        regions = {f"region:{name}": dict(each) for name, each in in_region.items() if each}
        held = self._store.lists([*places, *regions])
        written = {}
        for name, some in places.items():
            data = items.data[some]
            weights = data["uptake" if name == "uptake" else "orders"].astype(np.float64)
            at_s = data["at"].astype(np.int64)
            written[name] = raised_list(held[name], items.products[some], weights, at_s, _LISTED, self._decay)
        for name, added in regions.items():
            written[name] = merged_list(held[name], added, _LISTED, self._decay)
        return written

    def _count(self, **outcomes: int) -> None:
        for outcome, records in outcomes.items():
            if records:
                self._meters.count(outcome, records)
