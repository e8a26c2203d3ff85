"""A stream's records as rows of columns, as the importer's mapping takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import polars as pl

from connectors.files import Chunk

__all__ = ["EMITTED_AT", "chunk_of", "row_of"]

EMITTED_AT = "_emitted_at"
"""Column with the time at which the source emitted the record, ms since the epoch; every stream has it."""


def row_of(record: dict[str, Any]) -> dict[str, str | None]:
    """Return a RECORD message's content by column, as text: nested objects by dots, lists as JSON."""
    row: dict[str, str | None] = {}
    _flatten(record.get("data") or {}, "", row)
    emitted = record.get("emitted_at")
    row[EMITTED_AT] = None if emitted is None else str(int(emitted))
    return row


def chunk_of(rows: Sequence[dict[str, str | None]], columns: Iterable[str], first: int) -> Chunk:
    """Return rows as a chunk; a column that no row has is empty. `first` is the first one's number."""
    names = dict.fromkeys([*columns, EMITTED_AT, *(name for row in rows for name in row)])
    table = {name: [row.get(name) for row in rows] for name in names}
    frame = pl.DataFrame(table, schema=dict.fromkeys(names, pl.String))
    return Chunk(frame, list(range(first, first + len(rows))))


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
