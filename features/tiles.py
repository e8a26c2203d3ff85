"""Tiles, and the blob in which an entity keeps all of its tiles of one view.

Blob, version 2, little-endian, tiles ascending by (hop, grain):

    magic "DTL2" | crc32 of the rest u32 | tiles K u32 | doubles F u32 | sketches D u32 | partitions P u32
    length of names M u32 | names of the doubles, then of the sketches, separated by NUL, padded by NUL to M
    hop i64[K] | n i64[K] | max_event_time i64[K] | positions i64[P][K] | doubles f64[F][K]
    grain (s) u32[K] | for each sketch: ends u32[K], coupons u32[ends[-1]]

The doubles are the view's partials in the order of the plan; `last` is followed by its time (ms, exact in a
double). A partial that was never computed, because its aggregate is younger than the tile, is NaN, or the one
coupon 0xFFFFFFFF: a window that needs it is unknown until a backfill. The names let a blob outlive a
change of the plan.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
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
    "sketch_fields",
    "tile_reader",
]

_HEAD = struct.Struct("<4sIIIIII")
_MAGIC = b"DTL2"
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


def encode(tiles: Iterable[Tile], view: ViewPlan | None = None) -> bytes:
    """Encode tiles of one view and entity, in any order. Without `view` the blob cannot outlive its plan."""
    rows = sorted(tiles, key=itemgetter(1, 0))  # hop, then grain
    k = len(rows)
    grain, hop, n, doubles, sketches, latest, positions = zip(*rows, strict=True) if rows else ((),) * 7
    f, d = (len(doubles[0]), len(sketches[0])) if rows else (0, 0)
    p = max(map(len, positions), default=0)
    if any(len(each) != p for each in positions):
        positions = tuple(each + (-1,) * (p - len(each)) for each in positions)
    # Columns are built by C loops over transposed tuples: this runs for every entity of every batch.
    parts = [
        np.array([hop, n, latest], "<i8"),
        np.fromiter(chain.from_iterable(positions), "<i8", k * p).reshape(k, p).T,
        np.fromiter(chain.from_iterable(doubles), "<f8", k * f).reshape(k, f).T,
        np.array(grain, "<u4"),
    ]
    for column in zip(*sketches, strict=True):
        parts.append((np.cumsum(np.fromiter(map(len, column), "<u4", k)) // 4).astype("<u4"))
        parts.append(np.frombuffer(b"".join(column), "<u4"))
    names = b"\0".join(name.encode() for name in _names(view)) if view and rows else b""
    names += b"\0" * (-(_HEAD.size + len(names)) % 8)
    head = struct.pack("<IIIII", len(rows), f, d, p, len(names))
    rest = head + names + b"".join(part.tobytes() for part in parts)
    return _MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest


def decode(blob: bytes) -> Tiles:
    """Read a blob without copying its columns. Raises CorruptBlobError."""
    if len(blob) < _HEAD.size or blob[:4] != _MAGIC:
        raise CorruptBlobError(
            f"tiles start with {blob[:4]!r} and have {len(blob)} bytes; a blob starts with {_MAGIC!r}"
        )
    _, crc, k, f, d, p, m = _HEAD.unpack_from(blob)
    if zlib.crc32(memoryview(blob)[8:]) != crc:
        raise CorruptBlobError(f"a blob of {len(blob)} bytes does not match its checksum")
    at = _HEAD.size + m
    names = blob[_HEAD.size : at].rstrip(b"\0").decode()
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
    return Tiles(
        table[0], table[1], table[2], table[3:], doubles.reshape(f, k), grain, tuple(sketches),
        tuple(names.split("\0")) if names else (),
    )  # fmt: skip


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
