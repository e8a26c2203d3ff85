"""Tiles, and the blob in which an entity keeps all of its tiles of one view.

Blob, version 4, little-endian:

    magic "DTL4" | checksum of the rest u32 | tiles K u32 | doubles F u32 | sketches D u32 | partitions P u32
    length of names M u32 | names of the doubles, then of the sketches, separated by NUL, padded by NUL to M
    K rows (see `features.rows`), ascending by (hop, grain) | for each sketch: coupons u32, row after row

The doubles are the view's partials in the order of the plan; `last` is followed by its time (ms, exact in a
double). A partial that was never computed, because its aggregate is younger than the tile, is NaN, or the one
coupon 0xFFFFFFFF: a window that needs it is unknown until a backfill. The names let a blob outlive a
change of the plan. The checksum is the low half of xxh3-64. Blobs of version 3, whose checksum was crc32,
and of version 2, which were columns, are still read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.rows import MAGIC, Layout, Packed, Rows, checksum, joined
from schemas.errors import DealerIQError

__all__ = [
    "NEVER_COMPUTED",
    "CorruptBlobError",
    "Tile",
    "Tiles",
    "align",
    "decode",
    "double_fields",
    "encode",
    "from_record",
    "pack",
    "sketch_fields",
    "stored",
    "tile_reader",
]

_HEAD = struct.Struct("<4sIIIIII")
_COLUMNS, _ROWS = b"DTL2", b"DTL3"
NEVER_COMPUTED = b"\xff\xff\xff\xff"
"""The sketch of a tile that is older than its aggregate."""


class CorruptBlobError(DealerIQError):
    """An entity's stored tiles cannot be read."""

    remedy = "Rebuild the feature view from its tile topic; the log still holds every tile."
    exit_code = 7


class Tile(NamedTuple):
    """Partial aggregates of an entity over [hop_ms, hop_ms + grain_s); complete, so a newer one replaces it."""

    grain_s: int
    hop_ms: int
    n: int
    doubles: tuple[float, ...]
    sketches: tuple[bytes, ...]
    max_event_time: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Tiles:
    """The columns of a blob; `names` are of the doubles, then of the sketches, or empty where it holds none."""

    hop: NDArray[np.int64]
    n: NDArray[np.int64]
    max_event_time: NDArray[np.int64]
    positions: NDArray[np.int64]
    doubles: NDArray[np.float64]
    grain: NDArray[np.uint32]
    sketches: tuple[tuple[NDArray[np.uint32], NDArray[np.uint32]], ...]
    names: tuple[str, ...] = ()

    def rows(self) -> list[Tile]:
        """Return the tiles one by one."""
        return [
            Tile(
                int(self.grain[k]), int(self.hop[k]), int(self.n[k]), tuple(self.doubles[:, k].tolist()),
                tuple(c[(int(e[k - 1]) if k else 0) : int(e[k])].tobytes() for e, c in self.sketches),
                int(self.max_event_time[k]), tuple(self.positions[:, k].tolist()),
            )
            for k in range(len(self.hop))
        ]  # fmt: skip


def double_fields(view: ViewPlan) -> list[str]:
    """Return the names of a tile's doubles, in order."""
    names = []
    for column in view.columns:
        for partial in column.partials:
            if partial != "distinct":
                names.append(f"{column.column}_{partial}")
            if partial == "last":
                names.append(f"{column.column}_last_time")
    return names


def sketch_fields(view: ViewPlan) -> list[str]:
    """Return the names of a tile's sketches, in order."""
    return [f"{c.column}_distinct" for c in view.columns if "distinct" in c.partials]


def from_record(view: ViewPlan, record: Mapping[str, Any]) -> Tile:
    """Return the tile of a decoded record of the view's tile topic."""
    return tile_reader(view)(record)


def tile_reader(view: ViewPlan) -> Callable[[Mapping[str, Any]], Tile]:
    """Return `from_record` of one view, with the names of its fields looked up once."""
    doubles, sketches, nan = double_fields(view), sketch_fields(view), float("nan")

    def read(record: Mapping[str, Any]) -> Tile:
        get = record.get
        return Tile(
            grain_s=record["grain"],
            hop_ms=record["hop"],
            n=record["n"],
            doubles=tuple([nan if (each := get(name)) is None else float(each) for name in doubles]),
            sketches=tuple([NEVER_COMPUTED if (each := get(name)) is None else each for name in sketches]),
            max_event_time=get("max_event_time") or 0,
            positions=tuple(get("positions") or ()),
        )

    return read


def pack(layout: Layout, tiles: Sequence[Tile]) -> Packed:
    """Return tiles as rows. Raises ValueError for a sketch that is not whole coupons."""
    table = layout.empty(len(tiles))
    if tiles:
        grain, hop, n, doubles, sketches, latest, positions = zip(*tiles, strict=True)
        table["grain"], table["hop"], table["n"], table["latest"] = grain, hop, n, latest
        table["doubles"] = doubles
        for row, some in zip(table["positions"], positions, strict=True):
            row[: len(some)] = some
        if any(len(each) % 4 for some in sketches for each in some):
            raise ValueError("a sketch is not a number of whole coupons")
        columns = tuple(list(column) for column in zip(*sketches, strict=True))
    else:
        columns = tuple([] for _ in range(layout.sketches))
    return layout.packed(table, columns)


def encode(tiles: Iterable[Tile], view: ViewPlan | None = None) -> bytes:
    """Encode tiles of one view and entity, in any order. Without `view` the blob cannot outlive its plan."""
    ordered = sorted(tiles, key=itemgetter(1, 0))  # hop, then grain
    f, d = (len(ordered[0].doubles), len(ordered[0].sketches)) if ordered else (0, 0)
    layout = Layout.of(f, d, max((len(tile.positions) for tile in ordered), default=0))
    packed = pack(layout, ordered)
    names = joined(_names(view) if view and ordered else ())
    return b"".join(Rows(layout, {}, packed.rows, packed.sketches).blob(names))


def decode(blob: bytes) -> Tiles:
    """Read a blob without copying its columns. Raises CorruptBlobError."""
    if len(blob) < _HEAD.size or blob[:4] not in (MAGIC, _ROWS, _COLUMNS):
        raise CorruptBlobError(
            f"tiles start with {blob[:4]!r} and have {len(blob)} bytes; a blob starts with {MAGIC!r}"
        )
    _, crc, k, f, d, p, m = _HEAD.unpack_from(blob)
    rest = memoryview(blob)[8:]
    if (checksum(rest) if blob[:4] == MAGIC else zlib.crc32(rest)) != crc:
        raise CorruptBlobError(f"a blob of {len(blob)} bytes does not match its checksum")
    at = _HEAD.size + m
    named = blob[_HEAD.size : at].rstrip(b"\0").decode()
    names = tuple(named.split("\0")) if named else ()
    if blob[:4] == _COLUMNS:
        return _decode_columns(blob, at, (k, f, d, p), names)
    layout = Layout.of(f, d, p)
    table = np.frombuffer(blob, layout.dtype, k, at)
    at += k * layout.width
    sketches = []
    for each in range(d):
        ends = np.cumsum(table["coupons"][:, each], dtype=np.uint32)
        coupons = np.frombuffer(blob, "<u4", int(ends[-1]) if k else 0, at)
        at += coupons.nbytes
        sketches.append((ends, coupons))
    return Tiles(
        table["hop"], table["n"], table["latest"], table["positions"].T, table["doubles"].T, table["grain"],
        tuple(sketches), names,
    )  # fmt: skip


def stored(view: ViewPlan, blob: bytes) -> Packed:
    """Read a blob as rows, whatever plan and version it was written with. Raises CorruptBlobError."""
    tiles = decode(blob)
    doubles, partitions = len(double_fields(view)), len(tiles.positions)
    layout = Layout.of(doubles, len(sketch_fields(view)), partitions)
    if blob[:4] == _COLUMNS or tiles.names != _names(view):
        return pack(layout, align(view, tiles).rows())
    start = _HEAD.size + _HEAD.unpack_from(blob)[6]
    rows = blob[start : start + len(tiles.hop) * layout.width]
    columns = []
    for ends, coupons in tiles.sketches:
        whole, cuts = coupons.tobytes(), [0, *(ends * 4).tolist()]
        columns.append([whole[a:b] for a, b in pairwise(cuts)])
    return Packed(
        layout, rows, tiles.hop.tolist(), tiles.grain.tolist(), tiles.max_event_time.tolist(), tuple(columns)
    )


def _decode_columns(blob: bytes, at: int, sizes: tuple[int, int, int, int], names: tuple[str, ...]) -> Tiles:
    k, f, d, p = sizes
    longs = np.frombuffer(blob, "<i8", k * (3 + p), at)
    at += longs.nbytes
    doubles = np.frombuffer(blob, "<f8", k * f, at)
    at += doubles.nbytes
    grain = np.frombuffer(blob, "<u4", k, at)
    at += grain.nbytes
    sketches = []
    for _ in range(d):
        ends = np.frombuffer(blob, "<u4", k, at)
        at += ends.nbytes
        coupons = np.frombuffer(blob, "<u4", int(ends[-1]) if k else 0, at)
        at += coupons.nbytes
        sketches.append((ends, coupons))
    table = longs.reshape(3 + p, k)
    return Tiles(table[0], table[1], table[2], table[3:], doubles.reshape(f, k), grain, tuple(sketches), names)


def align(view: ViewPlan, tiles: Tiles) -> Tiles:
    """Put the partials in the order of the plan; those that the blob lacks were never computed.

    Raises CorruptBlobError for a blob without names whose number of partials is not the plan's.
    """
    wanted = _names(view)
    if tiles.names == wanted:
        return tiles
    doubles, sketches = double_fields(view), sketch_fields(view)
    k, f = len(tiles.hop), len(tiles.doubles)
    if not tiles.names and k:
        if (f, len(tiles.sketches)) != (len(doubles), len(sketches)):
            raise CorruptBlobError(
                f"a blob without names has {f} doubles and {len(tiles.sketches)} sketches; "
                f"{view.name} has {len(doubles)} and {len(sketches)}"
            )
        return replace(tiles, names=wanted)
    by_name = dict(zip(tiles.names, [*tiles.doubles, *tiles.sketches], strict=True)) if k else {}
    missing = np.full(k, np.nan)
    never = (np.arange(1, k + 1, dtype=np.uint32), np.full(k, 0xFFFFFFFF, np.uint32))
    return replace(
        tiles,
        doubles=np.array([by_name.get(name, missing) for name in doubles], np.float64).reshape(len(doubles), k),
        sketches=tuple(by_name.get(name, never) for name in sketches),
        names=wanted,
    )


def _names(view: ViewPlan) -> tuple[str, ...]:
    return (*double_fields(view), *sketch_fields(view))
