"""Files of rows: read whole, written some rows at a time, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa

from features.history.point_in_time import METADATA_KEY
from features.history.rows import EntityRowsError

__all__ = ["FORMATS", "TableWriter", "format_of", "origin_path", "read_frame", "writing"]

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Format by the ending of a file's name."""


class TableWriter(Protocol):
    """Takes tables of one schema, one after the other."""

    def __call__(self, table: pa.Table) -> None:
        """Write the rows of a table."""


def format_of(path: Path) -> str:
    """Return the format of a file by its name. Raises EntityRowsError."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise EntityRowsError(
            f"{path.name} is of no known format", remedy=f"Name it {', '.join(f'*{each}' for each in FORMATS)}."
        ) from None


def read_frame(path: Path, text: Iterable[str]) -> pa.Table:
    """Read a file of rows; in CSV the columns of `text` are not taken for numbers. Raises EntityRowsError."""
    import polars as pl
    from polars.exceptions import PolarsError

    kind = format_of(path)
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            frame = pq.ParquetFile(path).read()
        elif kind == "csv":
            overrides: Any = dict.fromkeys(text, pl.String)
            frame = pl.read_csv(path, schema_overrides=overrides, infer_schema_length=None).to_arrow()
        else:
            frame = pl.read_ndjson(path, infer_schema_length=None).to_arrow()
    except (OSError, pa.ArrowException, PolarsError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EntityRowsError(f"{path} cannot be read as {kind}: {reason[:200]}") from error
    if not len(frame):
        raise EntityRowsError(f"{path} holds no rows")
    return frame


def origin_path(path: Path) -> Path:
    """Return where it stands what a CSV or JSONL file's values came from; a Parquet file says it itself."""
    return path.with_name(f"{path.name}.origin.json")


@contextmanager
def writing(path: Path) -> Iterator[TableWriter]:
    """Write tables to a file that appears when all are written; after an error nothing is left.

    What the values came from goes into a Parquet file's metadata, and beside the other formats.
    """
    kind, partial = format_of(path), path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    origin: bytes | None = None
    try:
        with partial.open("wb") as file:
            put = _SINKS[kind](file)

            def write(table: pa.Table) -> None:
                nonlocal origin
                origin = (table.schema.metadata or {}).get(METADATA_KEY)
                put.write(table)

            yield write
            put.close()
        if kind != "parquet" and origin is not None:
            origin_path(path).write_text(json.dumps(json.loads(origin), indent=1) + "\n", "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Parquet:
    def __init__(self, file: Any) -> None:
        self._file, self._writer = file, cast(Any, None)

    def write(self, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Text:
    """CSV with one header, or JSON lines."""

    def __init__(self, file: Any, csv: bool) -> None:
        self._file, self._csv, self._first = file, csv, True

    def write(self, table: pa.Table) -> None:
        import polars as pl

        frame = pl.DataFrame(pl.from_arrow(table))
        if self._csv:
            frame.write_csv(self._file, include_header=self._first, datetime_format="%Y-%m-%dT%H:%M:%S%.f%:z")
        else:
            frame.write_ndjson(self._file)
        self._first = False

    def close(self) -> None:
        pass


_SINKS: dict[str, Any] = {
    "parquet": _Parquet,
    "csv": lambda file: _Text(file, csv=True),
    "jsonl": lambda file: _Text(file, csv=False),
}
