"""Read files of rows in constant memory: CSV, JSON Lines, Parquet.

A row that cannot be read is told with its line number and reason, and reading goes on behind it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl

from schemas.errors import DealerIQError

__all__ = ["FORMATS", "BadRow", "Chunk", "UnreadableFileError", "format_of", "read_chunks"]

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "jsonl", "parquet")
ROWS = 10_000
LONGEST_FIELD = 4_000_000  # characters; nothing that a topic takes is longer
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class UnreadableFileError(DealerIQError):
    """A file cannot be read as rows at all. Nothing was produced."""

    remedy = "Check the file, or say what it is with --format and --encoding."
    exit_code = 2


@dataclass(frozen=True)
class BadRow:
    """A row that did not become an event: its line (from 1; Parquet: row), why, and what stood there."""

    line: int
    reason: str
    row: Any

    def record(self) -> dict[str, Any]:
        """Return the row as it stands in the rejects file."""
        return {"line": self.line, "reason": self.reason, "row": self.row}


@dataclass
class Chunk:
    """Some rows of a file, in order: readable ones as columns with their lines, and the unreadable ones."""

    frame: pl.DataFrame
    lines: list[int]
    bad: list[BadRow] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of the file that the chunk holds, readable or not."""
        return len(self.lines) + len(self.bad)


def format_of(path: Path, given: str | None = None) -> Format:
    """Return the file's format, from `given` or its suffix. Raises UnreadableFileError."""
    if given is not None:
        for each in FORMATS:
            if each == given:
                return each
        raise UnreadableFileError(f"format {given!r} is not one of {', '.join(FORMATS)}")
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise UnreadableFileError(
            f"the name {path.name} does not tell its format", remedy=f"Say --format {'|'.join(FORMATS)}."
        )
    return found


def read_chunks(path: Path, kind: Format, encoding: str = "utf-8", rows: int = ROWS) -> Iterator[Chunk]:
    """Yield a file's rows, `rows` at a time; text columns for CSV and JSON Lines, typed ones for Parquet.

    Chunks always split at the same rows. Raises UnreadableFileError for an absent or empty file, or one that is
    something else than said.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be opened: {error.strerror}") from error
    if not start:
        raise UnreadableFileError(f"{path} is empty", remedy="Give a file with at least one row.")
    if kind == "parquet":
        yield from _parquet(path, rows)
        return
    if start == b"PAR1" or start[:2] == b"PK" or start[:2] == b"\x1f\x8b":
        what = (
            "Parquet" if start == b"PAR1" else "a ZIP archive or spreadsheet" if start[:1] == b"P" else "gzip"
        )
        raise UnreadableFileError(
            f"{path.name} is {what}, not {kind}", remedy="Unpack or export it as CSV first."
        )
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") and encoding == "utf-8":
        raise UnreadableFileError(f"{path.name} is UTF-16, not UTF-8", remedy="Say --encoding utf-16.")
    try:
        "".encode(encoding)
    except LookupError:
        raise UnreadableFileError(
            f"no encoding is called {encoding!r}", remedy="Say utf-8 or cp1252."
        ) from None
    yield from (_csv if kind == "csv" else _jsonl)(path, encoding, rows)


def _csv(path: Path, encoding: str, rows: int) -> Iterator[Chunk]:
    csv.field_size_limit(LONGEST_FIELD)
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    with path.open(encoding=name, errors="surrogateescape", newline="") as file:
        first = file.readline(LONGEST_FIELD)
        delimiter = max(",;\t|", key=first.count)
        header = [column.strip() for column in next(csv.reader([first], delimiter=delimiter), [])]
        if not any(header):
            raise UnreadableFileError(f"{path.name} has no header line", remedy="Name the columns in line 1.")
        if repeated := sorted({column for column in header if header.count(column) > 1}):
            raise UnreadableFileError(f"{path.name} has columns of one name: {', '.join(repeated)}")
        reader = csv.reader(file, delimiter=delimiter)
        width, line, end = len(header), 2, False
        while not end:
            good: list[list[str]] = []
            lines: list[int] = []
            bad: list[BadRow] = []
            while len(good) + len(bad) < rows:
                try:
                    row = next(reader)
                except StopIteration:
                    end = True
                    break
                except csv.Error as error:
                    bad.append(BadRow(line, f"the line is not CSV: {error}", None))
                else:
                    if len(row) == width:
                        good.append(row)
                        lines.append(line)
                    elif row:
                        bad.append(BadRow(line, f"{len(row)} fields, and the header has {width}", row))
                line = reader.line_num + 2
            table = (
                dict(zip(header, zip(*good, strict=True), strict=True)) if good else dict.fromkeys(header, ())
            )
            yield _checked(table, lines, bad, encoding)


def _jsonl(path: Path, encoding: str, rows: int) -> Iterator[Chunk]:
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    with path.open(encoding=name, errors="surrogateescape") as file:
        line, end = 0, False
        while not end:
            good: list[dict[str, str | None]] = []
            lines: list[int] = []
            bad: list[BadRow] = []
            while len(good) + len(bad) < rows:
                text = file.readline(LONGEST_FIELD)
                if not text:
                    end = True
                    break
                line += 1
                if not text.strip():
                    continue
                try:
                    record = orjson.loads(text)
                    if not isinstance(record, dict):
                        raise ValueError("a JSON object is wanted")
                    good.append({key: _text(key, value) for key, value in record.items()})
                    lines.append(line)
                except (ValueError, UnicodeEncodeError) as error:
                    reason = f"the line is not a JSON object of plain values: {error}"
                    bad.append(BadRow(line, reason, _printable(text[:2000].rstrip())))
            names = dict.fromkeys(key for record in good for key in record)
            yield _checked({key: [record.get(key) for record in good] for key in names}, lines, bad, encoding)


def _parquet(path: Path, rows: int) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        line = 1
        for batch in file.iter_batches(batch_size=rows):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield Chunk(frame, list(range(line, line + frame.height)))
            line += frame.height
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFileError(f"{path.name} is not a whole Parquet file: {error}") from error


def _text(key: str, value: Any) -> str | None:
    if value is None or value.__class__ is str:
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    raise ValueError(f"{key} is nested")


def _checked(table: dict[str, Any], lines: list[int], bad: list[BadRow], encoding: str) -> Chunk:
    try:
        return Chunk(pl.DataFrame(table, schema=dict.fromkeys(table, pl.String)), lines, bad)
    except UnicodeEncodeError:
        pass
    # Some row holds bytes that are not text: find it, the rest goes on.
    keep = []
    for at, row in enumerate(zip(*table.values(), strict=True)):
        if all(value is None or _encodable(value) for value in row):
            keep.append(at)
        else:
            broken = {key: _printable(value) for key, value in zip(table, row, strict=True)}
            bad.append(BadRow(lines[at], f"bytes that are not {encoding}; try --encoding cp1252", broken))
    kept = {key: [values[at] for at in keep] for key, values in table.items()}
    frame = pl.DataFrame(kept, schema=dict.fromkeys(table, pl.String))
    return Chunk(frame, [lines[at] for at in keep], bad)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(value: str | None) -> str | None:
    return (
        None if value is None else value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    )
