"""What is remembered of a dealer: its open orders, what it has, and its region.

The memory of open orders is also what makes an event count once: a line whose product its order has already
adds nothing. A dealer's lines come in order, so its last orders are enough, and no ids need be kept.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from models.recommend.records import KNOWN, known_of

__all__ = ["BASKETS", "PAIRED", "Baskets", "Known", "order_key", "stocked"]

BASKETS = 64
"""Most orders of a dealer that are remembered: the horizon in which an event counts once."""
PAIRED = 16
"""A product is paired with so many that its order had before: an order of 160 lines would make 12,720 pairs."""

_LARGEST = 256  # products of one order that are remembered
_REFRESH_S = 86_400  # a time that moves by less is not written again
_HEAD = struct.Struct("<QH")


def order_key(order_id: str) -> int:
    """Return the name of an order among those of its dealer."""
    return xxh3_64_intdigest(order_id.encode())


class Baskets:
    """The last orders of a dealer, each with its products in the order that they came."""

    def __init__(self, packed: bytes | None) -> None:
        self._orders: dict[int, list[int]] = {}
        at = 0
        while packed and at < len(packed):
            order, count = _HEAD.unpack_from(packed, at)
            at += _HEAD.size
            self._orders[order] = list(struct.unpack_from(f"<{count}Q", packed, at))
            at += 8 * count

    def add(self, order: int, product: int) -> list[int] | None:
        """Add a product to an order; return those it is paired with, None where the order has it already."""
        products = self._orders.pop(order, None)
        if products is None:
            products = []
            if len(self._orders) >= BASKETS:
                del self._orders[next(iter(self._orders))]
        self._orders[order] = products  # the last that was touched goes last
        if product in products:
            return None
        before = products[-PAIRED:]
        products.append(product)
        del products[:-_LARGEST]
        return before

    def pack(self) -> bytes:
        """Return what `Baskets` reads."""
        return b"".join(
            _HEAD.pack(order, len(products)) + struct.pack(f"<{len(products)}Q", *products)
            for order, products in self._orders.items()
        )


class Known:
    """What one dealer has, 16 bytes a product. Changes gather until `take`; they are appended in the store, and
    all of it is written anew when a third is out of date.
    """

    def __init__(self, packed: bytes) -> None:
        self._held = known_of(packed)
        self._written = len(packed) // KNOWN.itemsize
        self._changed: dict[int, tuple[int, int]] = {}

    def order(self, lines: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The dealer ordered products, each at a time; return those that it never ordered before."""
        before = self._look([product for product, _ in lines])
        fresh = []
        for product, at_s in lines:
            ordered, stock = before[product]
            if ordered == 0:
                fresh.append((product, at_s))
            if ordered == 0 or at_s >= ordered + _REFRESH_S:
                before[product] = self._changed[product] = max(at_s, 1), stock
        return fresh

    def level(self, levels: Sequence[tuple[int, int, int]]) -> None:
        """The dealer told what it has on hand (product, units, time); the newest counts, then the last."""
        before = self._look([product for product, _, _ in levels])
        for product, on_hand, at_s in levels:
            ordered, stock = before[product]
            if at_s // 2 >= stock // 2:
                before[product] = self._changed[product] = ordered, at_s // 2 * 2 + (on_hand > 0)

    def take(self) -> tuple[bytes, bool]:
        """Return what is to be written, and whether it takes the place of everything (else it is appended)."""
        changed = np.array([(product, *each) for product, each in self._changed.items()], KNOWN)
        changed.sort(order="product")
        self._changed = {}
        places = np.searchsorted(self._held["product"], changed["product"])
        there = np.zeros(len(changed), bool)
        inside = places < len(self._held)
        there[inside] = self._held["product"][places[inside]] == changed["product"][inside]
        self._held[places[there]] = changed[there]
        self._held = np.insert(self._held, places[~there], changed[~there])
        whole = 2 * (self._written + len(changed)) > 3 * len(self._held)
        self._written = len(self._held) if whole else self._written + len(changed)
        return (self._held if whole else changed).tobytes(), whole

    def _look(self, products: Sequence[int]) -> dict[int, tuple[int, int]]:
        names = np.array(products, np.uint64)
        found = dict.fromkeys(products, (0, 0))
        places = np.searchsorted(self._held["product"], names)
        inside = places < len(self._held)
        for product, ordered, stock in self._held[places[inside]].tolist():
            if product in found:
                found[product] = ordered, stock
        return found | {each: self._changed[each] for each in products if each in self._changed}


def stocked(known: NDArray[Any], now_s: int, stocked_s: float) -> NDArray[np.bool_]:
    """Return which entries a dealer has: it ordered them lately, or has some on hand."""
    lately = (known["ordered"] > 0) & (known["ordered"] >= now_s - stocked_s)
    return np.asarray((known["stock"] % 2 == 1) | lately, bool)
