"""Which rows of the lake are events that count: readable, within their topic's bounds, each id once."""

from __future__ import annotations

from schemas.bounds import Bound, bounds
from schemas.catalogue import topic

__all__ = ["accepted_sql", "columns_checked", "once_sql"]


def columns_checked(topic_name: str, there: frozenset[str]) -> list[str]:
    """Return the columns that `accepted_sql` looks at."""
    return [each.field for each in bounds(topic_name) if each.field in there]


def accepted_sql(topic_name: str, there: frozenset[str]) -> str:
    """Return the condition under which a row was taken in and not sent to the dead letters.

    The same bounds as everywhere, from the topic's schema; those of columns that the table does not have yet
    (`there` names the ones it has) cannot be broken.
    """
    parts = ["NOT _tombstone", "_raw IS NULL"]
    parts += [part for each in bounds(topic_name) if each.field in there for part in _conditions(each)]
    return " AND ".join(parts)


def _conditions(bound: Bound) -> list[str]:
    name = quoted(bound.field)
    found = []
    if bound.type == "string":
        low, high = bound.min_length or 0, bound.max_length
        if low or high is not None:
            most = f" AND {high}" if high is not None else ""
            found.append(f"length({name}) {f'BETWEEN {low}{most}' if most else f'>= {low}'}")
        if bound.pattern:
            found.append(f"regexp_full_match({name}, {text(bound.pattern)})")
    else:
        if bound.type in ("double", "float"):
            found.append(f"isfinite({name})")  # a NaN is not in a Parquet file's statistics, and passes bounds
        if bound.minimum is not None:
            found.append(f"{name} >= {bound.minimum}")
        if bound.maximum is not None:
            found.append(f"{name} <= {bound.maximum}")
    if bound.nullable:
        return [f"({name} IS NULL OR {' AND '.join(found)})"] if found else []
    return found or [f"{name} IS NOT NULL"]  # a comparison with null is not true either


def once_sql(topic_name: str, table: str) -> str:
    """Return a query of the rows of `table`, each id once under its key: the one at the first position.

    Only ids whose hash comes twice are sorted. `table` has the column `_hash` of both.
    """
    identity = ", ".join(map(quoted, ["event_id", *topic(topic_name).key]))
    twice = f"(SELECT _hash FROM {table} GROUP BY _hash HAVING count(*) > 1)"
    return (
        f"SELECT * FROM {table} WHERE _hash NOT IN {twice} UNION ALL "
        f"(SELECT * FROM {table} WHERE _hash IN {twice} "
        f"QUALIFY row_number() OVER (PARTITION BY {identity} ORDER BY _partition, _offset) = 1)"
    )


def hash_sql(topic_name: str) -> str:
    """Return the hash that `once_sql` needs."""
    return f"hash({', '.join(map(quoted, ['event_id', *topic(topic_name).key]))})"


def quoted(name: str) -> str:
    """Return an identifier for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text literal for DuckDB."""
    return "'" + value.replace("'", "''") + "'"
