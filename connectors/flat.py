"""Nested records as rows of columns, as the importer's mapping takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import polars as pl

from connectors.files import Chunk

__all__ = ["chunk_of", "flat"]


def flat(record: dict[str, Any]) -> dict[str, str | None]:
    """Return a record's content by column, as text: nested objects by dots, lists as JSON."""
    row: dict[str, str | None] = {}
    _flatten(record, "", row)
    return row


def chunk_of(rows: Sequence[dict[str, str | None]], lines: Sequence[int], columns: Iterable[str] = ()) -> Chunk:
    """Return rows as a chunk, each with its number; of `columns`, one that no row has is empty."""
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    table = {name: [row.get(name) for row in rows] for name in names}
    return Chunk(pl.DataFrame(table, schema=dict.fromkeys(names, pl.String)), list(lines))


def _flatten(value: dict[str, Any], prefix: str, row: dict[str, str | None]) -> None:
    for name, inner in value.items():
        if isinstance(inner, dict):
            _flatten(inner, f"{prefix}{name}.", row)
        elif isinstance(inner, list):
            row[prefix + name] = orjson.dumps(inner).decode()
        else:
            row[prefix + name] = _text(inner)


def _text(value: Any) -> str | None:
    if value is None or value.__class__ is str:
        return value
    if value is True or value is False:
        return "true" if value else "false"
    return repr(value)
