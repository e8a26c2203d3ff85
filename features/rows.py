"""Tiles as packed rows: what the writer keeps, splices and stores without making an object of a tile.

A row has a fixed width, so that a tile is replaced, or put between others, by copying bytes:

    hop i64 | n i64 | max_event_time i64 | positions i64[P] | doubles f64[F]
    grain (s) u32 | how many coupons each sketch has u32[D] | padded to 8

The coupons of a sketch lie apart from the rows, in the order of the rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64

__all__ = ["MAGIC", "Layout", "Packed", "Rows", "checksum", "joined"]

MAGIC = b"DTL4"
_HEAD = struct.Struct("<IIIII")
_HOP = struct.Struct("<q")
_GRAIN = struct.Struct("<I")
_NEVER = -(2**62)
_FOREVER = 2**62


def joined(names: Sequence[str]) -> bytes:
    """Return names as a blob holds them: padded so that the rows begin at a multiple of 8."""
    text = b"\0".join(name.encode() for name in names)
    return text + b"\0" * (-(8 + _HEAD.size + len(text)) % 8)


@dataclass(frozen=True)
class Packed:
    """Tiles as rows of one layout: bytes, and what the writer looks at of each. Sketches: one list a sketch."""

    layout: Layout
    rows: bytes
    hop: list[int]
    grain: list[int]
    latest: list[int]
    sketches: tuple[list[bytes], ...]


class Layout:
    """The row of tiles with so many doubles, sketches and source partitions."""

    def __init__(self, doubles: int, sketches: int, partitions: int) -> None:
        self.doubles, self.sketches, self.partitions = doubles, sketches, partitions
        self.grain_at = 24 + 8 * (partitions + doubles)
        self.width = (self.grain_at + 4 * (1 + sketches) + 7) // 8 * 8
        self.dtype = np.dtype(
            {
                "names": ["hop", "n", "latest", "positions", "doubles", "grain", "coupons"],
                "formats": [
                    "<i8",
                    "<i8",
                    "<i8",
                    ("<i8", (partitions,)),
                    ("<f8", (doubles,)),
                    "<u4",
                    ("<u4", (sketches,)),
                ],
                "offsets": [0, 8, 16, 24, 24 + 8 * partitions, self.grain_at, self.grain_at + 4],
                "itemsize": self.width,
            }
        )
        self.age = struct.Struct(f"<8x{2 + partitions}q")
        """How new a tile is: its events, latest event and positions, which only grow."""

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, doubles: int, sketches: int, partitions: int) -> Layout:
        """Return the one layout of these sizes: to make one costs more than to read a blob."""
        return cls(doubles, sketches, partitions)

    def empty(self, count: int) -> NDArray[np.void]:
        """Return rows to be filled, without positions and with every double unknown."""
        table: NDArray[np.void] = np.zeros(count, self.dtype)
        table["positions"] = -1
        table["doubles"] = np.nan
        return table

    def packed(self, table: NDArray[np.void], sketches: tuple[list[bytes], ...]) -> Packed:
        """Return filled rows for the writer; how many coupons each has is filled in here."""
        for d, column in enumerate(sketches):
            table["coupons"][:, d] = np.fromiter(map(len, column), np.int64, len(column)) // 4
        return Packed(
            self,
            table.tobytes(),
            table["hop"].tolist(),
            table["grain"].tolist(),
            table["latest"].tolist(),
            sketches,
        )

    def fitted(self, packed: Packed) -> Packed:
        """Return rows of a layout with fewer partitions as rows of this one."""
        if packed.layout is self:
            return packed
        old = np.frombuffer(packed.rows, packed.layout.dtype)
        table = self.empty(len(old))
        for name in ("hop", "n", "latest", "doubles", "grain"):
            table[name] = old[name]
        table["positions"][:, : packed.layout.partitions] = old["positions"]
        return self.packed(table, packed.sketches)


class Rows:
    """All tiles of one entity, ascending by (hop, grain)."""

    __slots__ = ("_expires", "_layout", "_limits", "data", "latest", "sketches")

    def __init__(
        self,
        layout: Layout,
        limits: dict[int, int],
        data: bytes = b"",
        sketches: Iterable[Iterable[bytes]] = (),
    ) -> None:
        """`limits`: for each grain (s) how long after a tile's start (ms) it is dropped; others are at once."""
        self._layout, self._limits = layout, limits
        self.data = bytearray(data)
        self.sketches = tuple(list(each) for each in sketches) or tuple([] for _ in range(layout.sketches))
        self._expires, self.latest = _FOREVER, 0
        if data:
            table = np.frombuffer(data, layout.dtype)
            self.latest = int(table["latest"].max())
            self._expires = int(self._ends(table).min())

    def size(self) -> int:
        """Return about how many bytes of memory this takes."""
        return 600 + len(self.data) + sum(len(column) * 100 for column in self.sketches)

    def put(self, packed: Packed, i: int) -> None:
        """Take in row `i`, unless the tile that is there is newer."""
        layout, data = self._layout, self.data
        width, hop, grain = layout.width, packed.hop[i], packed.grain[i]
        row = packed.rows[i * width : (i + 1) * width]
        low, high = 0, len(data) // width
        hop_of, grain_of, grain_at = _HOP.unpack_from, _GRAIN.unpack_from, layout.grain_at
        if high and hop_of(data, len(data) - width)[0] < hop:  # most come at the end
            low = high
        while low < high:
            middle = (low + high) >> 1
            at = middle * width
            there = hop_of(data, at)[0]
            if there < hop or (there == hop and grain_of(data, at + grain_at)[0] < grain):
                low = middle + 1
            else:
                high = middle
        at = low * width
        if at < len(data) and hop_of(data, at)[0] == hop and grain_of(data, at + grain_at)[0] == grain:
            if layout.age.unpack_from(row) < layout.age.unpack_from(data, at):
                return
            data[at : at + width] = row
            for mine, theirs in zip(self.sketches, packed.sketches, strict=True):
                mine[low] = theirs[i]
        else:
            data[at:at] = row
            for mine, theirs in zip(self.sketches, packed.sketches, strict=True):
                mine.insert(low, theirs[i])
            self._expires = min(self._expires, hop + self._limits.get(grain, _NEVER))
        self.latest = max(self.latest, packed.latest[i])

    def drop(self, now_ms: int) -> None:
        """Drop what is out of retention at `now_ms`."""
        if now_ms < self._expires:
            return
        table = np.frombuffer(bytes(self.data), self._layout.dtype)
        ends = self._ends(table)
        kept = ends > now_ms
        # As plain bytes: numpy leaves the padding behind a row's fields to chance when it copies records.
        whole = np.frombuffer(self.data, np.uint8).reshape(-1, self._layout.width)
        self.data = bytearray(whole[kept].tobytes())
        chosen = np.flatnonzero(kept).tolist()
        self.sketches = tuple([column[k] for k in chosen] for column in self.sketches)
        self._expires = int(ends[kept].min()) if chosen else _FOREVER

    def _ends(self, table: NDArray[np.void]) -> NDArray[np.int64]:
        limits = np.full(len(table), _NEVER, np.int64)
        for grain, limit in self._limits.items():
            limits[table["grain"] == grain] = limit
        ends: NDArray[np.int64] = table["hop"] + limits
        return ends

    def blob(self, names: bytes) -> list[bytes | bytearray]:
        """Return the parts of the blob (see `features.tiles`); `names` are `joined`."""
        layout = self._layout
        count = len(self.data) // layout.width
        head = _HEAD.pack(count, layout.doubles, layout.sketches, layout.partitions, len(names))
        parts: list[bytes | bytearray] = [head, names, self.data, *map(b"".join, self.sketches)]
        return [MAGIC + _GRAIN.pack(checksum(*parts)), *parts]


def checksum(*parts: bytes | bytearray | memoryview) -> int:
    """Return the low 32 bits of xxh3-64 of all parts, one after another: forty times as fast as crc32 here."""
    digest = xxh3_64()
    for part in parts:
        digest.update(part)
    return digest.intdigest() & 0xFFFFFFFF
