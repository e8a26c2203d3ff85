"""Rows of bytes that are mostly alike: Avro records of one kind, whose fields come in columns.

`connectors.columns` writes records of primitive fields by pyarrow. This writes records with maps and records
inside, where what is the same in all rows (names, keys of maps, counts) is most of them: it is laid out once,
numbers are filled in column by column, and one join a row puts texts between. It needs numpy alone, as hot
paths do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.varints import cut, varint, varints

__all__ = ["Double", "Flag", "Part", "Piece", "RowWriter", "Texts", "longs", "text", "texts"]

Bytes = NDArray[np.uint8]
_WIDTH = 8


@dataclass(frozen=True)
class Double:
    """A place for a column of doubles. A nullable one is a union of null and double: null where not finite."""

    column: str
    nullable: bool = False


@dataclass(frozen=True)
class Flag:
    """A place for a column of booleans."""

    column: str


@dataclass(frozen=True)
class Piece:
    """A place for a column of bytes that are ready: of `text`, `longs`, or another writer."""

    column: str


Part = bytes | Double | Flag | Piece


class _Sizes(dict[int, bytes]):
    def __missing__(self, size: int) -> bytes:
        found = self[size] = varint(size)
        return found


_sizes = _Sizes()


def text(value: str) -> bytes:
    """Return a string as Avro writes it."""
    (found,) = texts([value])
    return found


class Texts(dict[str, bytes]):
    """`texts` of strings that come again and again, remembered; at most `most` of them."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most

    def __missing__(self, value: str) -> bytes:
        if len(self) >= self._most:
            self.clear()
        found = self[value] = text(value)
        return found

    def of(self, column: Iterable[str]) -> list[bytes]:
        """Return the texts of a column."""
        return list(map(self.__getitem__, column))


def texts(column: Iterable[str]) -> list[bytes]:
    """Return strings as Avro writes them."""
    data = list(map(str.encode, column))
    return list(map(add, map(_sizes.__getitem__, map(len, data)), data))


def longs(column: NDArray[np.int64]) -> list[bytes]:
    """Return integers as Avro writes them."""
    offsets, data = varints(column)
    rows = len(column)
    if rows and len(data) % rows == 0 and (np.diff(offsets) == len(data) // rows).all():
        return _rows(data.reshape(rows, -1))  # times of a century are of one length
    return cut(offsets, data.tobytes())


class RowWriter:
    """Writes rows of these parts, in order: bytes that are the same in each row, and places for columns."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._runs: list[_Run | str] = []
        run: list[bytes | Double | Flag] = []
        for part in parts:
            if isinstance(part, Piece):
                self._runs += [_Run(run), part.column] if run else [part.column]
                run = []
            else:
                run.append(part)
        if run:
            self._runs.append(_Run(run))

    def write(self, rows: int, columns: Mapping[str, Any]) -> list[bytes]:
        """Return the rows. `columns` holds by name: arrays for doubles and flags, lists of bytes for pieces."""
        pieces = [columns[run] if isinstance(run, str) else run.rows(rows, columns) for run in self._runs]
        if len(pieces) == 1:
            return list(pieces[0])
        return list(map(b"".join, zip(*pieces, strict=True)))


class _Run:
    """Parts between two pieces. Rows are one table of bytes; what is null is cut out of its row."""

    def __init__(self, parts: Sequence[bytes | Double | Flag]) -> None:
        blank, self._doubles, self._flags = bytearray(), list[tuple[Double, int]](), list[tuple[str, int]]()
        for part in parts:
            match part:
                case Double(nullable=nullable):
                    blank += b"\x02" if nullable else b""  # the union's second branch
                    self._doubles.append((part, len(blank)))
                    blank += bytes(_WIDTH)
                case Flag(column):
                    self._flags.append((column, len(blank)))
                    blank += b"\0"
                case _:
                    blank += part
        self._blank = bytes(blank)

    def rows(self, count: int, columns: Mapping[str, Any]) -> Iterable[bytes]:
        if not self._doubles and not self._flags:
            return repeat(self._blank, count)
        width = len(self._blank)
        table = np.empty((count, width), np.uint8)
        table[:] = np.frombuffer(self._blank, np.uint8)
        absent: list[tuple[int, NDArray[np.bool_]]] = []
        for double, at in self._doubles:
            column = np.ascontiguousarray(columns[double.column], "<f8")
            table[:, at : at + _WIDTH] = column.view(np.uint8).reshape(count, _WIDTH)
            if double.nullable and not (known := np.isfinite(column)).all():
                table[~known, at - 1] = 0
                absent.append((at, ~known))
        for name, at in self._flags:
            table[:, at] = columns[name]
        found = _rows(table)
        if absent:
            short = np.flatnonzero(np.logical_or.reduce([rows for _, rows in absent]))
            cuts = [(at, rows[short]) for at, rows in absent]
            for row, each in zip(short.tolist(), _without(table[short], cuts), strict=True):
                found[row] = each
        return found


def _rows(table: Bytes) -> list[bytes]:
    found: list[bytes] = np.ascontiguousarray(table).view(f"V{table.shape[1]}").ravel().tolist()
    return found


def _without(table: Bytes, absent: Sequence[tuple[int, NDArray[np.bool_]]]) -> list[bytes]:
    """Return the rows of a table without the doubles at these places of these rows."""
    keep = np.ones(table.shape, bool)
    lengths = np.full(len(table), table.shape[1])
    for at, rows in absent:
        keep[rows, at : at + _WIDTH] = False
        lengths -= _WIDTH * rows
    return cut(np.concatenate([[0], np.cumsum(lengths)]), table[keep].tobytes())
