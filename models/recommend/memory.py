"""The state of recommendations in memory: what a training set folds into, and is read from as the stream is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recommend.candidates import Candidates, Reading
from models.recommend.folding import Written
from models.recommend.records import Items, known_of
from models.recommend.settings import RecommendSettings

__all__ = ["Memory"]


class Memory:
    """Packed as in the store, so that what comes out is rounded alike."""

    def __init__(self) -> None:
        self._items: dict[int, bytes] = {}
        self._lists: dict[str, bytes] = {}
        self._known: dict[str, list[bytes]] = defaultdict(list)
        self._orders: dict[str, bytes] = {}
        self._regions: dict[str, bytes] = {}

    def items(self, products: NDArray[np.uint64]) -> Items:
        """Return the records of products, which are ascending."""
        return Items.unpack(products, [self._items.get(each) for each in products.tolist()])

    def lists(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Return lists by name, None for one that is not there."""
        return {name: self._lists.get(name) for name in names}

    def dealers(self, ids: Sequence[str]) -> list[tuple[bytes, bytes | None, bytes | None]]:
        """Return, of each dealer, what it has, its last orders, and its region."""
        return [(self._packed(each), self._orders.get(each), self._regions.get(each)) for each in ids]

    def write(self, written: Written) -> None:
        """Take what a batch changes."""
        if written.items is not None:
            self._items |= dict(zip(written.items.products.tolist(), written.items.pack(), strict=True))
        self._lists |= written.lists
        for dealer, packed, whole in written.known:
            if whole:
                self._known[dealer].clear()
            self._known[dealer].append(packed)
        self._orders |= written.orders
        self._regions |= written.regions

    def known(self, dealer: str) -> NDArray[Any]:
        """Return what a dealer has."""
        return known_of(self._packed(dealer))

    def candidates(self, dealer: str, settings: RecommendSettings) -> Candidates:
        """Return a dealer's candidates, as `Ranking` reads them from the store."""
        region = self._regions.get(dealer, b"").decode().partition(" ")[2]
        reading = Reading(self.known(dealer), self._lists.get("uptake"), self._lists.get("orders"), settings)
        wanted = reading.wanted(self.items(reading.seeds), self._lists.get(f"region:{region}"))
        return reading.candidates(self.items(wanted))

    def _packed(self, dealer: str) -> bytes:
        return b"".join(self._known[dealer]) if dealer in self._known else b""
