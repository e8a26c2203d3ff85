"""Folding orders into products: how often each is ordered, taken up by another dealer, and with which others.

Item-to-item co-purchase, counted as it comes: Sarwar, Karypis, Konstan and Riedl, "Item-based collaborative
filtering recommendation algorithms" (WWW 2001); Deshpande and Karypis, "Item-based top-N recommendation
algorithms" (TOIS 2004). Counts decay (`decay.py`). A product keeps its strongest neighbours only; a neighbour
that falls off loses its count, so a kept count is never above the true one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recommend.decay import Decay
from models.recommend.records import LISTED, NEIGHBOURS, Items, listed_of

__all__ = ["Counts", "fold", "merged_list", "raised_list"]

Products = NDArray[np.uint64]
Weights = NDArray[np.float64]


@dataclass
class Counts:
    """What a batch adds: (product, s) of orders and of uptake, and pairs, each once, in three columns."""

    orders: list[tuple[int, int]] = field(default_factory=list)
    uptake: list[tuple[int, int]] = field(default_factory=list)
    products: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    together_s: list[int] = field(default_factory=list)

    def pair(self, product: int, others: list[int], at_s: int) -> None:
        """One product was ordered with others, in one order."""
        self.products += [product] * len(others)
        self.others += others
        self.together_s += [at_s] * len(others)


def fold(items: Items, counts: Counts, decay: Decay) -> None:
    """Add `counts` to `items`, which hold every product that is counted, in place."""
    data = items.data
    ordered, ordered_s = _columns(counts.orders)
    taken, taken_s = _columns(counts.uptake)
    one, other = np.array(counts.products, np.uint64), np.array(counts.others, np.uint64)
    pair_s = np.array(counts.together_s, np.int64)
    rows = items.place(ordered)
    newest = data["at"].astype(np.int64)
    np.maximum.at(newest, rows, ordered_s)
    kept = decay.weight(newest - data["at"])
    data["at"] = newest
    size = len(data)
    data["orders"] = data["orders"] * kept + np.bincount(rows, decay.weight(newest[rows] - ordered_s), size)
    rows = items.place(taken)
    data["uptake"] = data["uptake"] * kept + np.bincount(rows, decay.weight(newest[rows] - taken_s), size)
    # Each pair counts both ways.
    ends = np.concatenate([items.place(one), items.place(other)])
    far = np.concatenate([other, one])
    weights = decay.weight(newest[ends] - np.concatenate([pair_s, pair_s]))
    data["near"]["together"] *= kept[:, None].astype(np.float32)
    _meet(data, ends, far, weights)


def _meet(data: NDArray[Any], rows: NDArray[np.int64], others: Products, weights: Weights) -> None:
    """Add weights to neighbours, and keep the strongest of each row that has new ones; ties by name."""
    if not len(rows):
        return
    touched, at = np.unique(rows, return_inverse=True)
    near = data["near"][touched]
    held, strength = near["product"], near["together"]
    is_held = held > 0
    row = np.concatenate([np.nonzero(is_held)[0], at])
    name = np.concatenate([held[is_held], others])
    weight = np.concatenate([strength[is_held], weights]).astype(np.float64)
    names, number = np.unique(name, return_inverse=True)
    pair, which = np.unique(row * len(names) + number, return_inverse=True)
    total = np.bincount(which, weight, len(pair))
    row, number = np.divmod(pair, len(names))
    order = np.lexsort((number, -total, row))  # names are ascending, and so are their numbers
    row, number, total = row[order], number[order], total[order]
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(len(touched)))[row]
    stays = place < NEIGHBOURS
    held[:], strength[:] = 0, 0
    held[row[stays], place[stays]] = names[number[stays]]
    strength[row[stays], place[stays]] = total[stays]
    data["near"][touched] = near


def raised_list(
    packed: bytes | None, products: Products, weights: Weights, at_s: NDArray[Any], most: int, decay: Decay
) -> bytes:
    """Return a list of the most popular, in which each of `products` has the weight given, as of its own time.

    All weights shrink alike, and only an event lets one grow: so the list is exactly the top of all products.
    """
    return _listed(packed, products, weights, at_s, most, decay, adds=False)


def merged_list(packed: bytes | None, added: Mapping[int, list[int]], most: int, decay: Decay) -> bytes:
    """Return a list of the most popular with orders added: product to the times, s, that it was ordered.

    A product that falls off the list begins again from nothing: a weight is never above the true one.
    """
    times = [(product, each) for product, some in added.items() for each in some]
    products, at_s = _columns(times)
    return _listed(packed, products, np.ones(len(products)), at_s, most, decay, adds=True)


def _listed(
    packed: bytes | None, products: Products, weights: Weights, at_s: NDArray[Any], most: int, decay: Decay,
    *, adds: bool,
) -> bytes:  # fmt: skip
    then_s, held = listed_of(packed)
    now_s = max(then_s, int(at_s.max(initial=0)))
    old = held["weight"] * decay.weight(np.array(now_s - then_s))
    fresh = weights * decay.weight(now_s - at_s)
    stays = np.ones(len(held), bool) if adds else ~np.isin(held["product"], products)
    name = np.concatenate([held["product"][stays], products])
    names, which = np.unique(name, return_inverse=True)
    total = np.bincount(which, np.concatenate([old[stays], fresh]), len(names))
    order = np.lexsort((names, -total))[:most]
    listed = np.empty(len(order), LISTED)
    listed["product"], listed["weight"] = names[order], total[order]
    return now_s.to_bytes(4, "little") + listed.tobytes()


def _columns(pairs: list[tuple[int, int]]) -> tuple[Products, NDArray[np.int64]]:
    return np.array([each for each, _ in pairs], np.uint64), np.array([each for _, each in pairs], np.int64)
