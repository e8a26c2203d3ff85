"""Current tables: what holds now, derived from the verbatim tables.

`<root>/current/<topic>` has the columns of the topic's table and fewer rows:

- of a compacted topic the latest row of each key: by event time, ties by position; a tombstone deletes its key;
- of an event topic each event id once: the row that came first.

Records that could not be decoded and tombstones are left out. The table carries the positions up to which it is
true, as every view does; a refresh reads only what came behind them.
"""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from connectors.identity import id_field
from connectors.lake.errors import LakeConflictError, LakeTableMissingError, translated
from connectors.lake.layout import app_id, arrow_schema, table_url
from connectors.lake.location import Root, lake_of
from connectors.lake.reading import relation
from connectors.lake.table import CONFIGURATION, open_delta, read_positions
from schemas.catalogue import topic

__all__ = ["has_current", "refresh"]

_MEMORY = "512MB"


def has_current(topic_name: str) -> bool:
    """True for topics whose rows have a key or an id to be current by."""
    declared = topic(topic_name)
    return declared.schema is not None and (declared.compacted or id_field(topic_name) is not None)


def refresh(root: Root, topic_name: str, *, anew: bool = False) -> int:
    """Bring a topic's current table up to the positions of its verbatim table; return the records read for it.

    `anew` makes it from the whole verbatim table, whatever it holds.

    Does nothing for a topic without a table, or one that has no current table (`has_current`). Raises
    LakeConflictError where another process refreshed at the same moment, and what reading a table raises.
    """
    from connectors.duck import connect_duckdb

    if not has_current(topic_name):
        return 0
    try:
        verbatim = open_delta(root, topic_name)
    except LakeTableMissingError:
        return 0
    with translated(verbatim.table_uri):
        target = read_positions(verbatim, topic_name)
    try:
        table = open_delta(root, topic_name, current=True)
        with translated(table.table_uri):
            held = read_positions(table, topic_name)
    except LakeTableMissingError:
        table, held = None, {}
    if anew:
        held = {}
    if all(held.get(number) == offset for number, offset in target.items()):
        return 0
    url = table_url(lake_of(root).url, topic_name, current=True)
    with connect_duckdb(memory_limit=_MEMORY, threads=1) as sql, translated(url):
        rows = relation(sql, root, topic_name, version=verbatim.version(), positions=target)
        behind = " AND ".join(
            f"NOT (_partition = {number} AND _offset < {offset})" for number, offset in held.items()
        )
        rows.filter(f"_raw IS NULL AND {behind or 'true'}").create_view("fresh")
        ((read,),) = sql.sql("SELECT count(*) FROM fresh").fetchall()
        if table is None or anew:
            empty = rows.limit(0)
            empty.create_view("held")
        else:
            relation(sql, root, topic_name, current=True).create_view("held")
        compacted = topic(topic_name).compacted
        query = _latest(sql) if compacted else _first(str(id_field(topic_name)))
        _write(root, topic_name, table, sql.sql(query), target, compacted or anew)
    return int(read)


def _first(name: str) -> str:
    """New ids, each as it came first."""
    return (
        f"SELECT * FROM fresh WHERE NOT _tombstone AND {name} NOT IN (SELECT {name} FROM held) "
        f"QUALIFY row_number() OVER (PARTITION BY {name} ORDER BY _partition, _offset) = 1"
    )


def _latest(sql: Any) -> str:
    """The whole table anew: the winners of the keys that came, and all other rows."""
    names = [each[0] for each in sql.sql("DESCRIBE held").fetchall()]
    known = {each[0] for each in sql.sql("DESCRIBE fresh").fetchall()}
    shown = ", ".join(f'"{name}"' for name in names if name in known)
    order = "event_time DESC, _partition DESC, _offset DESC" if "event_time" in known else "_offset DESC"
    return f"""
        WITH ends AS (
            SELECT _key, max(_offset) FILTER (_tombstone) AS gone FROM fresh GROUP BY _key
        ), candidates AS (
            SELECT {shown} FROM fresh JOIN ends USING (_key)
            WHERE NOT _tombstone AND _offset > coalesce(gone, -1)
            UNION ALL
            SELECT {shown} FROM held LEFT JOIN ends USING (_key) WHERE gone IS NULL
        )
        SELECT * FROM candidates
        QUALIFY row_number() OVER (PARTITION BY _key ORDER BY {order}) = 1"""


def _write(
    root: Root, topic_name: str, table: DeltaTable | None, rows: Any, positions: dict[int, int], replace: bool
) -> None:
    lake = lake_of(root)
    if table is None:
        table = DeltaTable.create(
            table_url(lake.url, topic_name, current=True),
            arrow_schema(topic_name),
            mode="ignore",
            name=f"current {topic_name}",
            configuration=CONFIGURATION,
            storage_options=dict(lake.options) or None,
            raise_if_key_not_exists=False,
        )
        if read_positions(table, topic_name):
            raise LakeConflictError(f"{table.table_uri} was made and filled by another process")
    transactions = [Transaction(app_id(topic_name, n), offset) for n, offset in sorted(positions.items())]
    write_deltalake(
        table,
        cast(pa.RecordBatchReader, rows.to_arrow_reader(100_000)),
        mode="overwrite" if replace else "append",
        schema_mode="merge",
        commit_properties=CommitProperties(app_transactions=transactions),
    )
