"""A topic's events that count, as a view in DuckDB: readable, within bounds, each id once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.lake import Lake, columns, relation
from features.history.accepted import accepted_sql, columns_checked, hash_sql, once_sql, quoted
from schemas.catalogue import topic

__all__ = ["read_once"]

_ALWAYS = ("_partition", "_offset", "_timestamp")


def read_once(
    connection: Any,
    lake: Lake,
    topic_name: str,
    version: int | None,
    wanted: Sequence[str],
    *,
    until_ms: int | None = None,
    where: str = "true",
) -> None:
    """Make the table `read` of a topic's accepted rows at a version, and the view `once` of it with each id
    once.

    Both have the columns `wanted`, the event's id and key, `event_time`, its position (`_partition`, `_offset`,
    `_timestamp`) and `_hash`, which stands for its identity. A version of None is a topic without a table: no
    rows. `until_ms` leaves out what happened later, `where` (SQL) what the caller does not need; both
    let whole files be passed over. Drop `once` and `read` before the next call.

    Raises what reading the lake raises; call it within `connectors.lake.translated`.
    """
    kept = list(dict.fromkeys(["event_id", *topic(topic_name).key, *wanted, "event_time"]))
    if version is None:
        nulls = ", ".join(f"NULL AS {quoted(name)}" for name in (*kept, *_ALWAYS, "_hash"))
        connection.execute(f"CREATE TEMP TABLE read AS SELECT {nulls} WHERE false")
    else:
        there = frozenset(columns(lake, topic_name, version).names)
        select = list(
            dict.fromkeys([*columns_checked(topic_name, there), *kept, *_ALWAYS, "_tombstone", "_raw"])
        )
        source = relation(connection, lake, topic_name, version=version, select=select)
        named = ", ".join(map(quoted, [*kept, *_ALWAYS]))
        earlier = "" if until_ms is None else f" AND event_time <= {int(until_ms)}"
        source.query(
            "read_rows",
            f"CREATE TEMP TABLE read AS SELECT {named}, {hash_sql(topic_name)} AS _hash FROM read_rows "
            f"WHERE {accepted_sql(topic_name, there)}{earlier} AND ({where})",
        )
    connection.execute(f"CREATE TEMP VIEW once AS {once_sql(topic_name, 'read')}")
