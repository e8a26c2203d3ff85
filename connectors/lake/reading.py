"""Reading the lake without Kafka: the files of a table at a version, its positions, and SQL for DuckDB.

    with connect_duckdb() as connection:
        connection.sql(f"SELECT count(*) FROM {scan_sql(root, 'orders')}")

A table only grows, so its rows as of a position are those below it: that needs no old version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from connectors.lake.errors import LakeTableMissingError, translated
from connectors.lake.layout import DATE, arrow_schema, table_url
from connectors.lake.location import Root, lake_of
from connectors.lake.table import open_delta, read_positions

__all__ = ["LakeFile", "active_files", "columns", "files", "positions", "relation", "scan_sql", "version"]


@dataclass(frozen=True, slots=True)
class LakeFile:
    """One active Parquet file: its address, day of arrival, rows and bytes."""

    uri: str
    date: str
    rows: int
    size: int


def version(root: Root, topic_name: str, *, current: bool = False) -> int:
    """Return the newest Delta version of a topic's table. Raises LakeTableMissingError."""
    return int(open_delta(root, topic_name, current=current).version())


def positions(root: Root, topic_name: str, version: int | None = None) -> dict[int, int]:
    """Return partition -> next offset up to which the table holds every record, at a version.

    Raises LakeTableMissingError.
    """
    table = open_delta(root, topic_name, version)
    with translated(table.table_uri):
        return read_positions(table, topic_name)


def files(root: Root, topic_name: str, version: int | None = None, *, current: bool = False) -> list[str]:
    """Return the addresses of the Parquet files that make up a table at a version, sorted.

    `_date` is in the address (`_date=2026-01-31/`), not in the file: read them with Hive partitioning.
    """
    return [each.uri for each in active_files(root, topic_name, version, current=current)]


def active_files(
    root: Root, topic_name: str, version: int | None = None, *, current: bool = False
) -> list[LakeFile]:
    """Return the files of `files`, each with its partition value, rows and bytes as the log states them."""
    return _files(open_delta(root, topic_name, version, current=current), root, topic_name, current)


def columns(root: Root, topic_name: str, version: int | None = None, *, current: bool = False) -> pa.Schema:
    """Return the columns of a table at a version."""
    return pa.schema(open_delta(root, topic_name, version, current=current).schema().to_arrow())


def scan_sql(
    root: Root,
    topic_name: str,
    *,
    version: int | None = None,
    positions: Mapping[int, int] | None = None,
    select: Sequence[str] | None = None,
    current: bool = False,
) -> str:
    """Return a subquery in parentheses with a table's rows, for DuckDB: `SELECT ... FROM {scan_sql(...)}`.

    `positions` keeps the rows below the given next offsets; a partition that it does not name gives none.
    `select` names the columns wanted; a column that the version does not have yet is null in every row, as one
    is that was added later. A topic without a table gives no rows. For a lake on S3 the connection needs
    DuckDB's httpfs with its secret; `relation` needs neither.
    """
    wanted = {each.name: each.type for each in arrow_schema(topic_name)}
    try:
        table = open_delta(root, topic_name, version, current=current)
    except LakeTableMissingError:
        if version is not None:
            raise
        there, paths = wanted, []
    else:
        with translated(table.table_uri):
            there = {each.name: each.type for each in pa.schema(table.schema().to_arrow())}
            by_day = table.metadata().partition_columns
        paths = [each.uri for each in _files(table, root, topic_name, current)]
    kinds = wanted | there
    names = list(select) if select is not None else list(there)
    if not paths:
        nulls = ", ".join(f"CAST(NULL AS {_duck(kinds[name])}) AS {_name(name)}" for name in names)
        return f"(SELECT {nulls} WHERE false)"
    shown = ", ".join(
        _name(name) if name in there else f"CAST(NULL AS {_duck(kinds[name])}) AS {_name(name)}"
        for name in names
    )
    hive = (
        f"hive_partitioning = true, hive_types = {{'{DATE}': VARCHAR}}"
        if by_day
        else "hive_partitioning = false"
    )
    scan = f"read_parquet([{', '.join(map(_text, paths))}], {hive}, union_by_name = true)"
    return f"(SELECT {shown} FROM {scan}{_below(positions)})"


def relation(
    connection: Any,
    root: Root,
    topic_name: str,
    *,
    version: int | None = None,
    positions: Mapping[int, int] | None = None,
    select: Sequence[str] | None = None,
    current: bool = False,
) -> Any:
    """Return the rows of `scan_sql` as a DuckDB relation of `connection`, from a folder or an object store."""
    lake = lake_of(root)
    if lake.is_local:
        with translated(f"{lake.url}/{topic_name}"):
            return connection.sql(
                "FROM "
                + scan_sql(
                    lake, topic_name, version=version, positions=positions, select=select, current=current
                )
            )
    table = open_delta(lake, topic_name, version, current=current)
    with translated(table.table_uri):
        data = table.to_pyarrow_dataset()
        shown = ", ".join(map(_name, select if select is not None else data.schema.names))
        return connection.from_arrow(data).query("lake", f"SELECT {shown} FROM lake{_below(positions)}")


def _files(table: DeltaTable, root: Root, topic_name: str, current: bool) -> list[LakeFile]:
    base = table_url(lake_of(root).url, topic_name, current=current)
    with translated(base):
        added = pl.DataFrame(table.get_add_actions(flatten=True)).to_dicts()
    found = [
        # The log's paths are relative and escaped as in an address.
        LakeFile(
            f"{base}/{unquote(each['path'])}",
            each.get(f"partition.{DATE}") or "",
            each["num_records"] or 0,
            each["size_bytes"],
        )
        for each in added
    ]
    return sorted(found, key=lambda each: each.uri)


def _below(positions: Mapping[int, int] | None) -> str:
    if positions is None:
        return ""
    parts = [f"(_partition = {int(n)} AND _offset < {int(offset)})" for n, offset in sorted(positions.items())]
    return f" WHERE {' OR '.join(parts) or 'false'}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _duck(kind: pa.DataType) -> str:
    if pa.types.is_map(kind):
        return f"MAP({_duck(kind.key_type)}, {_duck(kind.item_type)})"
    if pa.types.is_list(kind):
        return f"{_duck(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_name(f.name)} {_duck(f.type)}' for f in kind)})"
    return _DUCK[str(kind)]


_DUCK = {
    "string": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "double": "DOUBLE", "float": "REAL",
    "bool": "BOOLEAN", "binary": "BLOB",
}  # fmt: skip
