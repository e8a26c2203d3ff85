"""What the warehouse holds, without dbt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import DealerIQError

__all__ = ["NoWarehouseError", "TableContents", "contents"]


class NoWarehouseError(DealerIQError):
    """No warehouse was built yet."""

    remedy = "Run `dealeriq warehouse build`."
    exit_code = 2


@dataclass(frozen=True)
class TableContents:
    """One table: its schema (staging, marts, meta), name and rows."""

    schema: str
    name: str
    rows: int


def contents(file: Path) -> tuple[list[TableContents], list[tuple[str, int | None]], str]:
    """Return its tables, the lake version that the newest build read of each topic, and when that was (UTC).

    Raises NoWarehouseError.
    """
    if not file.exists():
        raise NoWarehouseError(f"there is no warehouse at {file}")
    from connectors.duck import connect_duckdb

    with connect_duckdb(str(file), read_only=True) as connection:
        names = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2"
        ).fetchall()
        tables = [
            TableContents(schema, name, _rows(connection.execute(f'SELECT count(*) FROM "{schema}"."{name}"')))
            for schema, name in names
        ]
        versions = connection.execute(
            "SELECT topic, lake_version FROM meta.builds "
            "WHERE built_at = (SELECT max(built_at) FROM meta.builds) ORDER BY topic"
        ).fetchall()
        (built_at,) = connection.execute("SELECT max(built_at) FROM meta.builds").fetchone() or (None,)
    when = "" if built_at is None else f"{built_at.isoformat(timespec='seconds')}Z"
    return tables, [(str(topic), at) for topic, at in versions], when


def _rows(cursor: object) -> int:
    row = cursor.fetchone()  # type: ignore[attr-defined]
    return int(row[0]) if row else 0
