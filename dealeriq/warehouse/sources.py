"""The sources of the dbt project: a view of the lake's files a topic, at versions that are written down.

It has the topic's fields, the lake's columns, and `_in_bounds`: whether the record is as the contract allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from connectors.lake import LakeTableMissingError, positions, relation, scan_sql, version
from connectors.lake.location import Lake
from schemas.bounds import Bound, bounds

__all__ = ["TOPICS", "SourceVersion", "create_sources", "in_bounds_sql"]

TOPICS = ("orders", "chats", "chats.enriched", "feedback", "labels", "dealers", "products")
"""What the project reads; warehouse/models/staging/_sources.yml names the same."""


@dataclass(frozen=True)
class SourceVersion:
    """What a build read of one topic: the table's Delta version and positions; None where there is no table."""

    topic: str
    version: int | None
    positions: dict[int, int]


def create_sources(connection: Any, lake: Lake) -> list[SourceVersion]:
    """Create the schema `lake` with a view a topic in an open DuckDB connection; return what they read.

    A lake in an object store is copied into tables instead: DuckDB has no reader for it without an extension
    that would have to be downloaded.
    """
    connection.execute("CREATE SCHEMA lake")
    found = []
    for name in TOPICS:
        try:
            at: int | None = version(lake, name)
            held = positions(lake, name, at)
        except LakeTableMissingError:
            at, held = None, {}
        found.append(SourceVersion(name, at, held))
        view = f'lake."{name.replace(".", "_")}"'
        shown = f"*, {in_bounds_sql(name)} AS _in_bounds"
        if lake.is_local or at is None:
            connection.execute(f"CREATE VIEW {view} AS SELECT {shown} FROM {scan_sql(lake, name, version=at)}")
        else:
            rows = relation(connection, lake, name, version=at)
            rows.create("lake_copy")
            connection.execute(f"CREATE TABLE {view} AS SELECT {shown} FROM lake_copy; DROP TABLE lake_copy")
    return found


def in_bounds_sql(topic_name: str) -> str:
    """Return a DuckDB condition, never null, that holds for what the topic's contract allows."""
    parts = ["NOT _tombstone", "_raw IS NULL"]
    for bound in bounds(topic_name):
        parts += _conditions(bound)
    return f"coalesce({' AND '.join(parts)}, false)"


def _conditions(bound: Bound) -> list[str]:
    name = f'"{bound.field}"'
    conditions = []
    if bound.minimum is not None:
        conditions.append(f"{name} >= {bound.minimum}")
    if bound.maximum is not None:
        conditions.append(f"{name} <= {bound.maximum}")
    if bound.type in ("double", "float"):
        conditions.append(f"isfinite({name})")
    if bound.min_length:
        conditions.append(f"length({name}) >= {bound.min_length}")
    if bound.max_length is not None:
        conditions.append(f"length({name}) <= {bound.max_length}")
    if bound.pattern is not None:
        pattern = bound.pattern.replace("'", "''")
        conditions.append(f"regexp_full_match({name}, '{pattern}')")
    if not bound.nullable:
        return [f"{name} IS NOT NULL", *conditions]
    return [f"({name} IS NULL OR ({' AND '.join(conditions)}))"] if conditions else []
