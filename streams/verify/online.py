"""What the online store holds, as columns: every stored tile of a view, and the rows that they belong to."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.keys import entity_key, unwrap_bytes
from features.keys import field as hash_field
from features.plan import Plan, ViewPlan
from features.tiles import CorruptBlobError, Tiles, align, decode, double_fields, sketch_fields

__all__ = ["Entity", "OnlineRows", "Row", "read_rows", "scan_entities"]

# The store answers one client after another: larger steps would keep readers of features waiting.
_PIPELINE, _SCAN = 50, 300
_TEXT = struct.Struct("<II")  # kind and size of a text, as an entity key has them
Entity = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One entity's fields in one view; `stamp_ms` None where it is absent or unreadable."""

    entity: Entity
    key: bytes
    value: bytes | None
    stamp_ms: int | None
    version: bytes | None
    tiles: Tiles | None = None
    problem: str | None = None


@dataclass
class OnlineRows:
    """The rows of one view, and their tiles one below the other: `row` names the row of each tile.

    `positions` is [tile, source partition], -1 for none. `sketches` are (tile, coupon) pairs by name, in order.
    """

    view: ViewPlan
    rows: list[Row]
    row: NDArray[np.int64]
    grain_s: NDArray[np.int64]
    hop: NDArray[np.int64]
    n: NDArray[np.int64]
    max_event_time: NDArray[np.int64]
    positions: NDArray[np.int64]
    doubles: dict[str, NDArray[np.float64]]
    sketches: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)

    def newest(self) -> NDArray[np.int64]:
        """Return the latest event time in any tile of each row, 0 for a row without tiles."""
        newest = np.zeros(len(self.rows), np.int64)
        np.maximum.at(newest, self.row, self.max_event_time)
        return newest

    def reach(self) -> NDArray[np.int64]:
        """Return the highest source offset in any tile of each row, by partition."""
        reach = np.full((len(self.rows), self.positions.shape[1]), -1, np.int64)
        np.maximum.at(reach, self.row, self.positions)
        return reach

    def stamps(self) -> NDArray[np.int64]:
        """Return each row's time, up to which its tiles are kept; that of its newest tile where it has none."""
        given = [row.stamp_ms for row in self.rows]
        known = np.array([-1 if each is None else each for each in given], np.int64)
        return np.where(known < 0, self.newest(), known)

    def frame(self) -> pl.DataFrame:
        """Return the entities with their row number and stamp."""
        keys = list(self.view.entity)
        columns: dict[str, Any] = {name: [row.entity[i] for row in self.rows] for i, name in enumerate(keys)}
        columns["_row"] = np.arange(len(self.rows), dtype=np.int64)
        columns["_stamp"] = self.stamps()
        return pl.DataFrame(columns, schema_overrides=dict.fromkeys(keys, pl.String))


def scan_entities(store: Any, plan: Plan, pause: Callable[[], None] = lambda: None) -> dict[str, set[Entity]]:
    """Return the entities that each view may have in the store: those whose key has the view's names."""
    by_names: dict[Entity, set[Entity]] = {
        tuple(sorted(view.entity)): set() for view in plan.views.values()
    }  # views of the same names have the same keys
    prefixes = [(_prefix(names), len(names), values) for names, values in by_names.items()]
    end, cursor = plan.project.encode(), 0
    while True:
        cursor, keys = store.scan(cursor, count=_SCAN)
        for key in keys:
            for prefix, count, values in prefixes:
                if key.startswith(prefix):
                    if (entity := _values(key, len(prefix), count, end)) is not None:
                        values.add(entity)
                    break
        pause()
        if cursor == 0:
            return {view.name: _ordered(view, by_names) for view in plan.views.values()}


def read_rows(
    store: Any,
    view: ViewPlan,
    project: str,
    entities: Iterable[Entity],
    partitions: int,
    pause: Callable[[], None] = lambda: None,
) -> OnlineRows:
    """Read what the store holds of a view's entities; those without any field of it have no row."""
    wanted = [hash_field(view.name, "tiles"), f"_ts:{view.name}".encode(), f"_version:{view.name}".encode()]
    rows = []
    for part in _parts(entities):
        keys = [entity_key(view, dict(zip(view.entity, each, strict=True)), project) for each in part]
        pipe = store.pipeline(transaction=False)
        for key in keys:
            pipe.hmget(key, wanted)
        for entity, key, (value, stamp, version) in zip(part, keys, pipe.execute(), strict=True):
            if value is not None or stamp is not None or version is not None:
                rows.append(_row(view, entity, key, value, stamp, version))
        pause()
    return _columns(view, rows, partitions)


def _parts(entities: Iterable[Entity]) -> Iterator[list[Entity]]:
    each = iter(entities)
    while part := list(islice(each, _PIPELINE)):
        yield part


def _row(
    view: ViewPlan, entity: Entity, key: bytes, value: bytes | None, stamp: bytes | None, version: bytes | None
) -> Row:
    tiles, problem = None, None
    if value is not None:
        try:
            tiles = align(view, decode(unwrap_bytes(value)))
        except (CorruptBlobError, IndexError, ValueError) as failure:
            problem = str(failure)
    return Row(entity, key, value, _stamp(stamp), version, tiles, problem)


def _columns(view: ViewPlan, rows: list[Row], partitions: int) -> OnlineRows:
    held = [(number, row.tiles) for number, row in enumerate(rows) if row.tiles is not None]
    counts = [len(tiles.hop) for _, tiles in held]
    total = sum(counts)
    width = max([partitions, *(len(tiles.positions) for _, tiles in held)])
    positions = np.full((total, width), -1, np.int64)
    at = 0
    for (_, tiles), count in zip(held, counts, strict=True):
        positions[at : at + count, : len(tiles.positions)] = tiles.positions.T
        at += count
    names = double_fields(view)
    doubles = _joined([tiles.doubles for _, tiles in held], np.float64, axis=1, empty=(len(names), 0))
    return OnlineRows(
        view,
        rows,
        np.repeat(np.array([number for number, _ in held], np.int64), counts),
        _joined([tiles.grain for _, tiles in held], np.int64),
        _joined([tiles.hop for _, tiles in held], np.int64),
        _joined([tiles.n for _, tiles in held], np.int64),
        _joined([tiles.max_event_time for _, tiles in held], np.int64),
        positions,
        dict(zip(names, doubles, strict=True)),
        {name: _sketch([tiles.sketches[i] for _, tiles in held]) for i, name in enumerate(sketch_fields(view))},
    )


def _joined(parts: Sequence[Any], dtype: Any, axis: int = 0, empty: tuple[int, ...] = (0,)) -> Any:
    return np.concatenate(parts, axis).astype(dtype) if parts else np.zeros(empty, dtype)


def _sketch(parts: Sequence[tuple[Any, Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = _joined([np.diff(ends, prepend=np.uint32(0)) for ends, _ in parts], np.int64)
    return np.repeat(np.arange(len(lengths)), lengths), _joined([coupons for _, coupons in parts], np.int64)


def _prefix(names: Entity) -> bytes:
    """How an entity key of Feast's layout begins: the count of its names and the names, in order."""
    return struct.pack("<I", len(names)) + b"".join(_TEXT.pack(2, len(each)) + each.encode() for each in names)


def _values(key: bytes, at: int, count: int, end: bytes) -> Entity | None:
    """Read the values behind the names of an entity key that ends with its project; None for any other key."""
    values = []
    try:
        for _ in range(count):
            kind, size = _TEXT.unpack_from(key, at)
            at += 8 + size
            if kind != 2 or at > len(key):
                return None
            values.append(key[at - size : at].decode())
    except (struct.error, UnicodeDecodeError):
        return None
    return tuple(values) if key[at:] == end else None


def _ordered(view: ViewPlan, by_names: Mapping[Entity, set[Entity]]) -> set[Entity]:
    """The entities of a view, their values in the view's order instead of that of their names."""
    names = tuple(sorted(view.entity))
    if names == view.entity:
        return by_names[names]
    places = [names.index(each) for each in view.entity]
    return {tuple(entity[place] for place in places) for entity in by_names[names]}


def _stamp(proto: bytes | None) -> int | None:
    """Read a google.protobuf.Timestamp, in ms; None for what is none."""
    if proto is None:
        return None
    found = {1: 0, 2: 0}
    at = 0
    try:
        while at < len(proto):
            number, at = proto[at] >> 3, at + 1
            value = shift = 0
            while True:
                value |= (proto[at] & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if not proto[at - 1] & 0x80:
                    break
            found[number] = value
        return found[1] * 1000 + found[2] // 1_000_000
    except IndexError:
        return None
