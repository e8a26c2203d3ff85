"""How the state of recommendations is packed, little-endian, in Redis.

A product is named by the 64-bit XXH3 of its id (two of a million products share one with a chance of 3 in
10^8), so no numbers are dealt out and every system packs the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

__all__ = [
    "ITEM",
    "KNOWN",
    "LISTED",
    "NEIGHBOURS",
    "Item",
    "Items",
    "fields_of",
    "known_of",
    "listed_of",
    "product_key",
]

NEIGHBOURS = 32
"""Most neighbours kept of a product."""

ITEM = np.dtype(
    [
        ("at", "<u4"),
        ("orders", "<f4"),
        ("uptake", "<f4"),
        ("count", "u1"),
        ("near", [("product", "<u8"), ("together", "<f4")], (NEIGHBOURS,)),
    ]
)
"""A product: the newest event time it holds (s since 2000), and as of then its decayed counts of orders, of
dealers that took it up, and of orders together with each of `count` neighbours, the most first (product 0:
none). A record ends with the last neighbour; behind it stand the length of the product's id (16 bits), the id,
and the category, in UTF-8."""

_NEAR = ITEM["near"].subdtype[0].itemsize  # type: ignore[index]
_HEAD = ITEM.itemsize - NEIGHBOURS * _NEAR

KNOWN = np.dtype([("product", "<u8"), ("ordered", "<u4"), ("stock", "<u4")])
"""What a dealer has of a product: when it last ordered it, and when its stock was last told (both s since 2000,
0: never); the lowest bit of the latter is whether there was some."""

LISTED = np.dtype([("product", "<u8"), ("weight", "<f4")])
"""An entry of a list of the most popular, its weight as of the list's time."""


class Item(NamedTuple):
    """Whose record it is."""

    product_id: str
    category: str

    def pack(self) -> bytes:
        """Return it as it stands behind a record."""
        identity = self.product_id.encode()
        return len(identity).to_bytes(2, "little") + identity + self.category.encode()

    @classmethod
    def unpack(cls, tail: bytes) -> Item:
        """Read what `pack` made."""
        end = 2 + int.from_bytes(tail[:2], "little")
        return cls(tail[2:end].decode(), tail[end:].decode())


@dataclass(slots=True)
class Items:
    """The records of some products, which are ascending: `data`, and in `tails` their packed `Item`s."""

    products: NDArray[np.uint64]
    data: NDArray[Any]
    tails: list[bytes]

    @classmethod
    def unpack(cls, products: NDArray[np.uint64], records: Sequence[bytes | None]) -> Items:
        """Read records; an absent one is a product without any count."""
        size = ITEM.itemsize
        ends = [_end(each) if each else 0 for each in records]
        heads = [(each or b"")[:end].ljust(size, b"\0") for each, end in zip(records, ends, strict=True)]
        data = np.frombuffer(b"".join(heads), ITEM).copy()
        return cls(products, data, [(each or b"")[end:] for each, end in zip(records, ends, strict=True)])

    def pack(self) -> Iterable[bytes]:
        """Return the records, in order."""
        self.data["count"] = np.count_nonzero(self.data["near"]["product"], axis=1)
        size, whole = ITEM.itemsize, self.data.tobytes()
        for start, tail in zip(range(0, len(whole), size), self.tails, strict=True):
            yield whole[start : start + _end(whole, start)] + tail

    def name(self, row: int) -> Item:
        """Return whose record stands in a row; empty texts where there was none."""
        return Item.unpack(self.tails[row])

    def place(self, products: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where each of `products`, all of which are here, stands."""
        return np.searchsorted(self.products, products)


def product_key(product_id: str) -> int:
    """Return the name of a product."""
    return xxh3_64_intdigest(product_id.encode()) or 1  # 0 means that there is none


def fields_of(products: NDArray[np.uint64]) -> list[bytes]:
    """Return the fields of products in the hash of all."""
    packed = products.astype("<u8").tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


def known_of(packed: bytes) -> NDArray[Any]:
    """Read what a dealer has. Of several entries of a product, the last one counts; they come in no order."""
    entries = np.frombuffer(packed, KNOWN)
    _, last = np.unique(entries["product"][::-1], return_index=True)
    return entries[len(entries) - 1 - last]


def listed_of(packed: bytes | None) -> tuple[int, NDArray[Any]]:
    """Read a list of the most popular: its time, and the entries, the most popular first."""
    if not packed:
        return 0, np.empty(0, LISTED)
    return int.from_bytes(packed[:4], "little"), np.frombuffer(packed, LISTED, offset=4)


def _end(record: bytes, start: int = 0) -> int:
    """The length of a record without its tail."""
    return _HEAD + _NEAR * record[start + _HEAD - 1]
