"""Read records of a tile topic, a batch at a time, into packed rows.

The records of a batch lie one after another in one array, and every field is read for all of them at once,
which costs a fraction of making a dictionary of each. Only records written with exactly the schema that this
program knows are read so, and only when each of their bytes is accounted for. Any other goes through
`schemas.codec`, which knows how schemas evolve and says what is wrong with a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.plan import ViewPlan
from features.rows import Layout, Packed
from features.tiles import NEVER_COMPUTED, Tile, double_fields, sketch_fields, tile_reader
from schemas.catalogue import topic
from schemas.codec import Decoder, UndecodableError

__all__ = ["TileBatch", "TileRecords"]

_FRAME = 5  # bytes before the record: 0 and the schema's id
_SPARE = 32  # zeros behind the last record, so that a broken one can be read on without harm
_LONGEST_VARINT = 10
_KINDS = frozenset(("string", "int", "long", "double", "bytes"))

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class TileBatch:
    """Tiles of one view. Row i of `packed` is of `entities[i]`, or of nobody where that is None."""

    packed: Packed
    entities: list[tuple[str, ...] | None]
    ingested_ms: list[int]
    """When the newest event of each tile was produced, where that is known."""
    unreadable: list[tuple[int, Exception]] = field(default_factory=list)


class TileRecords:
    """Reads one view's tile topic. `fetch_schema` returns the schema of a registry id (`Registry.schema`)."""

    def __init__(self, view: ViewPlan, fetch_schema: Callable[[int], Any]) -> None:
        schema = topic(view.topic).schema
        assert schema is not None, view.topic
        self._view = view
        self._decoder = Decoder.of_topic(view.topic, fetch_schema)
        self._one = tile_reader(view)
        self._doubles = {name: at for at, name in enumerate(double_fields(view))}
        self._sketches = {name: at for at, name in enumerate(sketch_fields(view))}
        self._fields = [(each["name"], *_kind(each["type"])) for each in schema["fields"]]
        self._regular = all(kind in _KINDS or kind == "longs" for _, kind, _ in self._fields)

    def read(self, values: Sequence[bytes], partitions: int = 0) -> TileBatch:
        """Read the values of some messages into rows of at least so many source partitions.

        Raises what `fetch_schema` raises for a registry that is away.
        """
        cursor = _Cursor(values)
        self._mark_foreign(cursor, values)
        columns = self._columns(cursor) if self._regular and not cursor.bad.all() else {}
        cursor.bad |= (cursor.at != cursor.ends) | (not columns)
        if columns:
            cursor.bad |= columns["grain"][0] >> 31 != 0  # negative, or longer than an int
        # Others first: they may need more partitions.
        others: dict[int, tuple[tuple[str, ...], Tile, int | None]] = {}
        unreadable: list[tuple[int, Exception]] = []
        for i in np.flatnonzero(cursor.bad).tolist():
            try:
                record = self._decoder.decode(values[i])
                tile = self._one(record)
                if any(len(sketch) % 4 for sketch in tile.sketches):
                    raise ValueError("a sketch is not a number of whole coupons")
                if tile.grain_s >> 31:
                    raise ValueError(f"a tile of {tile.grain_s} s")
                entity = tuple(str(record[key]) for key in self._view.entity)
                others[i] = entity, tile, record.get("max_ingest_time")
            except (UndecodableError, KeyError, TypeError, ValueError) as failure:
                unreadable.append((i, failure))
        given = columns.get("positions", ())
        wide = max([partitions, len(given), *(len(tile.positions) for _, tile, _ in others.values())])
        layout = Layout.of(len(self._doubles), len(self._sketches), wide)
        batch = self._assemble(layout, columns, cursor, others)
        batch.unreadable += unreadable
        return batch

    def _mark_foreign(self, cursor: _Cursor, values: Sequence[bytes]) -> None:
        known: dict[bytes, bool] = {}
        for i, value in enumerate(values):
            frame = value[:_FRAME]
            ours = known.get(frame)
            if ours is None:
                try:
                    ours = self._decoder.is_current(value)
                except UndecodableError:
                    ours = False
                known[frame] = ours
            if not ours:
                cursor.bad[i] = True

    def _columns(self, cursor: _Cursor) -> dict[str, Any]:
        """Every field by name: numbers as arrays, text and sketches as where they lie."""
        columns: dict[str, Any] = {}
        for name, kind, branch in self._fields:
            there = cursor.present(branch)
            match kind:
                case "double":
                    columns[name] = cursor.doubles(there)
                case "int" | "long":
                    columns[name] = cursor.longs(there), there
                case "longs":
                    columns[name] = cursor.arrays(there)
                case _:
                    columns[name] = found = cursor.slices(there)
                    if name in self._sketches:
                        cursor.bad |= (found.ends - found.starts) % 4 != 0
        return columns

    def _assemble(
        self,
        layout: Layout,
        columns: dict[str, Any],
        cursor: _Cursor,
        others: dict[int, tuple[tuple[str, ...], Tile, int | None]],
    ) -> TileBatch:
        count = len(cursor.bad)
        table = layout.empty(count)
        entities: list[tuple[str, ...] | None] = [None] * count
        unreadable: list[tuple[int, Exception]] = []
        sketches: tuple[list[bytes], ...] = tuple([b""] * count for _ in self._sketches)
        ingested: list[int] = []
        good = np.flatnonzero(~cursor.bad)
        if len(good) and columns:
            for name, target in (("hop", "hop"), ("n", "n"), ("grain", "grain"), ("max_event_time", "latest")):
                table[target][good] = columns[name][0][good]
            for p, column in enumerate(columns["positions"]):
                table["positions"][good, p] = column[good]
            for name, at in self._doubles.items():
                column = columns.get(name, np.full(count, np.nan))
                if isinstance(column, tuple):
                    column = np.where(column[1], column[0], np.nan)
                table["doubles"][good, at] = column[good]
            times, known = columns["max_ingest_time"]
            ingested = times[good][known[good]].tolist()
            chosen = good.tolist()
            texts = [columns[name].cut(cursor.buffer, chosen, b"") for name in self._view.entity]
            for i, key in zip(chosen, zip(*texts, strict=True), strict=True):
                try:
                    entities[i] = tuple([part.decode() for part in key])
                except UnicodeDecodeError as failure:
                    unreadable.append((i, failure))
            for name, at in self._sketches.items():
                for i, sketch in zip(
                    chosen, columns[name].cut(cursor.buffer, chosen, NEVER_COMPUTED), strict=True
                ):
                    sketches[at][i] = sketch
        for i, (entity, tile, produced) in others.items():
            entities[i] = entity
            row = table[i]
            row["hop"], row["n"], row["latest"], row["grain"] = (
                tile.hop_ms, tile.n, tile.max_event_time, tile.grain_s,
            )  # fmt: skip
            row["doubles"] = tile.doubles
            row["positions"][: len(tile.positions)] = tile.positions
            for at, sketch in enumerate(tile.sketches):
                sketches[at][i] = sketch
            if produced is not None:
                ingested.append(produced)
        return TileBatch(layout.packed(table, sketches), entities, ingested, unreadable)


def _kind(avro: Any) -> tuple[str, int]:
    """Return what a field holds and which branch of its union that is, -1 where it is never null."""
    if isinstance(avro, list):
        if len(avro) != 2 or "null" not in avro:
            return "unknown", -1
        branch = 1 - avro.index("null")
        return _kind(avro[branch])[0], branch
    if isinstance(avro, dict):
        if avro.get("type") == "array":
            return ("longs" if avro.get("items") == "long" else "unknown"), -1
        return _kind(avro["type"])
    return str(avro), -1


@dataclass(frozen=True)
class _Slices:
    starts: Ints
    ends: Ints
    there: Bools

    def cut(self, buffer: bytes, chosen: list[int], absent: bytes) -> list[bytes]:
        starts, ends, there = self.starts.tolist(), self.ends.tolist(), self.there.tolist()
        return [buffer[starts[i] : ends[i]] if there[i] else absent for i in chosen]


class _Cursor:
    """Where each record has been read to; a record that does not add up is marked bad and read on blindly."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self.buffer = b"".join(values) + bytes(_SPARE)
        self._data = np.frombuffer(self.buffer, np.uint8)
        self._limit = len(self.buffer) - _SPARE + 1  # one beyond the last record: it was read past its end
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        self.ends = lengths.cumsum()
        self.at = np.minimum(self.ends - lengths + _FRAME, self.ends)
        self.bad = np.zeros(len(values), np.bool_)

    def present(self, branch: int) -> Bools:
        """Read a union's branch: whether the value is there."""
        if branch < 0:
            return np.ones(len(self.at), np.bool_)
        byte = self._data[self.at]
        self._move(1)
        there: Bools = byte == 2 * branch
        self.bad |= ~there & (byte != 2 * (1 - branch))
        return there

    def longs(self, there: Bools) -> Ints:
        """Read a zigzag varint; 0 where it is not there."""
        value = np.zeros(len(self.at), np.uint64)
        chosen = np.flatnonzero(there)
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            byte = self._data[self.at[chosen]]
            value[chosen] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            self.at[chosen] = np.minimum(self.at[chosen] + 1, self._limit)
            chosen = chosen[byte >= 0x80]
            if not len(chosen):
                break
        self.bad[chosen] = True
        return (value >> np.uint64(1)).astype(np.int64) ^ -(value & np.uint64(1)).astype(np.int64)

    def doubles(self, there: Bools) -> NDArray[np.float64]:
        """Read eight bytes; NaN where they are not there."""
        found = self._data[self.at[:, None] + np.arange(8)].view("<f8")[:, 0]
        self._move(np.where(there, 8, 0))
        return np.where(there, found, np.nan)

    def slices(self, there: Bools) -> _Slices:
        """Read text or bytes: where they lie."""
        length = self.longs(there)
        self.bad |= (length < 0) | (length > self.ends - self.at)
        starts = self.at.copy()
        self._move(np.where(self.bad, 0, length))
        return _Slices(starts, self.at.copy(), there)

    def arrays(self, there: Bools) -> list[Ints]:
        """Read an array of longs in one block: a column for each place, -1 beyond the end."""
        count = self.longs(there)
        self.bad |= (count < 0) | (count > self.ends - self.at)
        count[self.bad] = 0
        columns = []
        for place in range(int(count.max(initial=0))):
            inside = count > place
            columns.append(np.where(inside, self.longs(inside), -1))
        ended = count > 0
        self.bad |= ended & (self._data[self.at] != 0)
        self._move(ended.astype(np.int64))
        return columns

    def _move(self, by: Any) -> None:
        self.at = np.minimum(self.at + by, self._limit)
