"""DuckDB in this process, without its progress bar: that goes to stdout, which is for data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["connect_duckdb"]


def connect_duckdb(database: str = ":memory:", *, read_only: bool = False, **config: Any) -> DuckDBPyConnection:
    """Return a connection, by default to a database in memory; `config` are DuckDB's own settings."""
    import duckdb

    connection = duckdb.connect(database, read_only=read_only, config=config)
    connection.execute("SET enable_progress_bar = false; SET enable_progress_bar_print = false")
    return connection
