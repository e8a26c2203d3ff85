"""Decode many Avro records of one schema to columns at once: `connectors.columns`, the other way.

All records of a batch lie in one buffer, and a cursor an each walks field by field in numpy. A record that the
walk cannot follow (another schema, a broken length, half a character) is left to the record-at-a-time decoder,
which knows the reason.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["ColumnDecoder"]

_HEADER = 5
_PAD = 64
_INT = 2**31
_KINDS = frozenset({"int", "long", "float", "double", "boolean", "string", "bytes"})
_POLARS: dict[str, Any] = {
    "int": pl.Int32, "long": pl.Int64, "float": pl.Float32, "double": pl.Float64, "boolean": pl.Boolean,
}  # fmt: skip

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


class ColumnDecoder:
    """Reads records of primitive fields, each plain or a union with null; `supports` says whether a schema is
    one.

    `schema` is a parsed Avro record schema, and `schema_id` its id in the registry.
    """

    def __init__(self, schema: Mapping[str, Any], schema_id: int) -> None:
        self._fields = [(field["name"], *_kind(field["type"])) for field in schema["fields"]]
        self._head = np.frombuffer(b"\x00" + struct.pack(">I", schema_id), np.uint8)

    @staticmethod
    def supports(schema: Mapping[str, Any]) -> bool:
        """Whether every field is a primitive, or a primitive or null."""
        return all(_kind(field["type"])[0] in _KINDS for field in schema["fields"])

    def decode(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
        """Return the columns, and which rows they are true for; the others hold anything."""
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        buffer = np.frombuffer(b"".join([*values, b"\0" * _PAD]), np.uint8)
        ends = np.cumsum(lengths)
        walk = _Walk(buffer, ends - lengths, ends)
        walk.header(self._head)
        columns = {name: walk.field(kind, null) for name, kind, null in self._fields}
        walk.finish()
        return pl.DataFrame(columns), walk.good


class _Walk:
    """The cursors of one batch. A row that is not good stands in the padding, where everything reads as
    nothing.
    """

    def __init__(self, buffer: Bytes, starts: Places, ends: Places) -> None:
        self._buffer, self._starts, self._ends = buffer, starts, ends
        self._pad = len(buffer) - _PAD
        self._cursor = starts.copy()
        self.good = np.ones(len(starts), bool)

    def header(self, head: Bytes) -> None:
        self._refuse(self._ends - self._starts < _HEADER)
        found = self._buffer[self._cursor[:, None] + np.arange(_HEADER)]
        self._refuse((found != head).any(1))
        self._cursor[self.good] += _HEADER

    def finish(self) -> None:
        self.good &= self._cursor == self._ends

    def field(self, kind: str, null: int) -> pl.Series:
        """Read one field of every row; `null` is the branch of null in its union, -1 for none."""
        absent = None
        if null >= 0:
            branch = self._varint()
            self._refuse((branch != 0) & (branch != 1))
            absent = (branch == null) | ~self.good
        if kind in ("string", "bytes"):
            return self._text(kind, absent)
        before = self._cursor
        if kind in ("int", "long"):
            values: Any = self._varint()
            if kind == "int":
                inside = (values >= -_INT) & (values < _INT)
                self._refuse(~inside if absent is None else ~inside & ~absent)
                values = np.where(inside, values, 0).astype(np.int32)
        elif kind == "boolean":
            values = self._buffer[before] == 1
            self._cursor = before + 1
        else:
            size, dtype = (8, "<f8") if kind == "double" else (4, "<f4")
            values = self._buffer[before[:, None] + np.arange(size)].view(dtype).ravel()
            self._cursor = before + size
        if absent is not None:
            self._cursor = np.where(absent, before, self._cursor)
        self._check()
        return _without(pl.Series(values, dtype=_POLARS[kind]), absent)

    def _text(self, kind: str, absent: NDArray[np.bool_] | None) -> pl.Series:
        before = self._cursor
        lengths = self._varint()
        if absent is not None:
            lengths = np.where(absent, 0, lengths)
            self._cursor = np.where(absent, before, self._cursor)
        self._refuse((lengths < 0) | (lengths > self._ends - self._cursor))
        lengths = np.where(self.good, lengths, 0)
        self._cursor = self._cursor + lengths
        begin = np.where(self.good, self._cursor - lengths, self._starts)
        # Between two texts lies what is not theirs: as a text of its own, it can be left out afterwards.
        bounds = np.empty(2 * len(begin) + 1, np.int32)
        bounds[0:-1:2], bounds[1::2], bounds[-1] = begin, begin + lengths, self._pad
        whole = pa.BinaryArray.from_buffers(
            pa.binary(), 2 * len(begin), [None, pa.py_buffer(bounds), pa.py_buffer(self._buffer)]
        )
        found = _without(pl.Series(whole).gather_every(2), absent)
        if kind == "bytes":
            return found
        try:
            return found.cast(pl.String)
        except pl.exceptions.PolarsError:
            texts = found.to_list()
            readable = [_readable(each) for each in texts]
            self._refuse(np.array([not each for each in readable]))
            pairs = zip(texts, readable, strict=True)
            return pl.Series([t.decode() if t is not None and ok else None for t, ok in pairs], dtype=pl.String)

    def _varint(self) -> Places:
        byte = self._buffer[self._cursor]
        value = (byte & 0x7F).astype(np.uint64)
        cursor = self._cursor + 1
        more = np.flatnonzero(byte & 0x80)
        shift = 7
        while len(more) and shift < 70:
            byte = self._buffer[np.minimum(cursor[more], self._pad)]
            value[more] |= (byte & np.uint8(0x7F)).astype(np.uint64) << np.uint64(shift)
            cursor[more] += 1
            more = more[byte >= 0x80]
            shift += 7
        self._cursor = cursor
        if len(more):
            endless = np.zeros(len(self.good), bool)
            endless[more] = True
            self._refuse(endless)
        self._check()
        one = np.uint64(1)
        return (value >> one).astype(np.int64) ^ -(value & one).astype(np.int64)

    def _check(self) -> None:
        self._refuse(self._cursor > self._ends)

    def _refuse(self, bad: NDArray[np.bool_]) -> None:
        self.good &= ~bad
        if not self.good.all():
            self._cursor = np.where(self.good, self._cursor, self._pad)


def _kind(avro: Any) -> tuple[str, int]:
    """Return the primitive's name and the branch of null."""
    if isinstance(avro, list):
        others = [each for each in avro if each != "null"]
        if len(avro) == 2 and len(others) == 1:
            return _kind(others[0])[0], avro.index("null")
        return "union", -1
    if isinstance(avro, dict):
        return (str(avro["type"]), -1) if isinstance(avro["type"], str) else ("", -1)
    return str(avro), -1


def _without(column: pl.Series, absent: NDArray[np.bool_] | None) -> pl.Series:
    return column if absent is None else column.set(pl.Series(absent), None)


def _readable(text: bytes | None) -> bool:
    try:
        return text is None or text.decode() is not None
    except UnicodeDecodeError:
        return False
