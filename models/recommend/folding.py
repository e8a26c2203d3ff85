"""Folding what dealers did into what recommendations are made of, wherever that is kept.

The recommend view folds the stream into Redis, and a training set folds the lake into memory: one fold, so that
a model reads in the stream what it was trained on.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.recommend.dealers import Baskets, Known
from models.recommend.decay import Decay
from models.recommend.fold import Counts, fold, merged_list, raised_list
from models.recommend.records import Item, Items

__all__ = ["Changes", "Folding", "State", "Written"]

_LISTED = 256  # entries of a list of the most popular
_DEALERS_KEPT = 2_000


@dataclass
class Changes:
    """What a batch tells, by dealer and in the log's order; products and orders by their keys, times in s since
    2000.

    `lines` are (order, product, time), `levels` (product, units on hand, time), `regions` (time, region);
    `names` says which product a key is.
    """

    lines: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    levels: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    regions: dict[str, tuple[int, str]] = field(default_factory=dict)
    names: dict[int, Item] = field(default_factory=dict)

    def region(self, dealer: str, at_s: int, region: str) -> None:
        """A dealer tells its region; the newest counts, then the last."""
        if at_s >= self.regions.get(dealer, (0, ""))[0]:
            self.regions[dealer] = at_s, region


@dataclass
class Written:
    """What a batch changes. `known` is (dealer, piece, whether it takes the place of all others).

    `folded` lines counted, `duplicate` ones did not: their order has the product already.
    """

    items: Items | None = None
    lists: Mapping[str, bytes] = field(default_factory=dict)
    known: Sequence[tuple[str, bytes, bool]] = ()
    orders: Mapping[str, bytes] = field(default_factory=dict)
    regions: Mapping[str, bytes] = field(default_factory=dict)
    folded: int = 0
    duplicate: int = 0


class State(Protocol):
    """Where the fold's state is read."""

    def items(self, products: NDArray[np.uint64]) -> Items:
        """Return the records of products, which are ascending."""

    def lists(self, names: Sequence[str]) -> Mapping[str, bytes | None]:
        """Return lists by name, None for one that is not there."""

    def dealers(self, ids: Sequence[str]) -> Sequence[tuple[bytes, bytes | None, bytes | None]]:
        """Return, of each dealer, what it has, its last orders, and its region."""


@dataclass
class _Dealer:
    known: Known
    baskets: Baskets
    region_s: int
    region: str


class Folding:
    """Folds batches onto a state that nobody else changes. What dealers have is kept here, too, for a batch
    touches most of them again: call `forget` when what was returned was not written.
    """

    def __init__(self, state: State, half_life_days: float) -> None:
        self._state, self._decay = state, Decay(half_life_days)
        self._dealers: OrderedDict[str, _Dealer] = OrderedDict()

    def forget(self) -> None:
        """Read every dealer anew: what is held may be ahead of the state."""
        self._dealers.clear()

    def fold(self, changes: Changes) -> Written:
        """Return what a batch changes. A line counts once among the last orders of its dealer."""
        dealers = self._look({*changes.lines, *changes.levels, *changes.regions})
        regions = {}
        for dealer, (at_s, region) in changes.regions.items():
            each = dealers[dealer]
            if at_s >= each.region_s:
                each.region_s, each.region = at_s, region
                regions[dealer] = f"{at_s} {region}".encode()
        counts = Counts()
        in_region: dict[str, dict[int, list[int]]] = {}
        for dealer, lines in changes.lines.items():
            _order(dealers[dealer], lines, counts, in_region)
        for dealer, levels in changes.levels.items():
            dealers[dealer].known.level(levels)
        touched = sorted({*changes.lines, *changes.levels})
        known = [(dealer, *dealers[dealer].known.take()) for dealer in touched]
        written = Written(
            known=[each for each in known if each[1]],
            orders={dealer: dealers[dealer].baskets.pack() for dealer in changes.lines},
            regions=regions,
            folded=len(counts.orders),
            duplicate=sum(map(len, changes.lines.values())) - len(counts.orders),
        )
        if counts.orders:
            self._count(counts, changes.names, in_region, written)
        while len(self._dealers) > _DEALERS_KEPT:
            self._dealers.popitem(last=False)
        return written

    def _look(self, ids: Iterable[str]) -> Mapping[str, _Dealer]:
        wanted = sorted(ids)
        missing = [each for each in wanted if each not in self._dealers]
        for dealer, (known, orders, region) in zip(missing, self._state.dealers(missing), strict=True):
            at, _, name = (region or b"0 ").decode().partition(" ")
            self._dealers[dealer] = _Dealer(Known(known), Baskets(orders), int(at), name)
        for each in wanted:
            self._dealers.move_to_end(each)
        return {each: self._dealers[each] for each in wanted}

    def _count(
        self,
        counts: Counts,
        names: Mapping[int, Item],
        in_region: Mapping[str, Mapping[int, list[int]]],
        written: Written,
    ) -> None:
        products = np.unique(np.array([product for product, _ in counts.orders], np.uint64))
        touched = np.unique(np.concatenate([products, np.array(counts.others, np.uint64)]))
        items = self._state.items(touched)
        for row, product in enumerate(touched.tolist()):
            if product in names:
                items.tails[row] = names[product].pack()
        fold(items, counts, self._decay)
        written.items, written.lists = items, self._listed(items, products, in_region)

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
        held = self._state.lists([*places, *regions])
        written = {}
        for name, some in places.items():
            data = items.data[some]
            weights = data["uptake" if name == "uptake" else "orders"].astype(np.float64)
            at_s = data["at"].astype(np.int64)
            written[name] = raised_list(held[name], items.products[some], weights, at_s, _LISTED, self._decay)
        for name, added in regions.items():
            written[name] = merged_list(held[name], added, _LISTED, self._decay)
        return written


def _order(
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
