"""Current tables of the lake against the topic's own table in the lake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from connectors.identity import id_field
from connectors.lake import LakeTableMissingError, Root, open_delta, relation
from connectors.lake.current import has_current
from connectors.lake.table import read_positions
from schemas.catalogue import topic as declared
from streams.verify.broker import Ends
from streams.verify.findings import Finding

__all__ = ["current_findings", "current_state"]


def current_state(root: Root, topic: str) -> tuple[int, Ends] | None:
    """Return the version and the positions of a topic's current table; None where it has none."""
    if not has_current(topic):
        return None
    try:
        table = open_delta(root, topic, current=True)
    except LakeTableMissingError:
        return None
    return int(table.version()), read_positions(table, topic)


def current_findings(sql: Any, root: Root, topic: str, version: int, held: Ends) -> Iterator[Finding]:
    """The current table, up to its own positions: each key or id once, and the row that should be it."""
    about = declared(topic)
    assert about.schema is not None, topic
    key = "_key" if about.compacted else str(id_field(topic))
    relation(sql, root, topic, version=version, current=True).create_view("current")
    below = " OR ".join(f"(_partition = {p} AND _offset < {offset})" for p, offset in held.items()) or "false"
    rows = f"(SELECT * FROM lake WHERE _raw IS NULL AND ({below}))"
    ordered = any(each["name"] == "event_time" for each in about.schema["fields"])
    for value, expected, found in sql.sql(_current_sql(key, about.compacted, ordered, rows)).fetchall():
        name = f"current/{topic}"
        yield Finding("current", "lake", name, (str(value),), key, "", expected, found)


def _current_sql(key: str, compacted: bool, ordered: bool, rows: str) -> str:
    """Return a query for (key, expected position, found position) of each row that is not as it should be."""
    if compacted:
        order = "event_time DESC, _partition DESC, _offset DESC" if ordered else "_offset DESC"
        gone = f"SELECT _key, coalesce(max(_offset) FILTER (_tombstone), -1) AS gone FROM {rows} GROUP BY _key"
        wanted = f"""
            SELECT r.* FROM {rows} r JOIN ({gone}) USING (_key) WHERE NOT _tombstone AND _offset > gone
            QUALIFY row_number() OVER (PARTITION BY _key ORDER BY {order}) = 1"""
    else:
        wanted = f"""
            SELECT * FROM {rows} WHERE NOT _tombstone
            QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY _partition, _offset) = 1"""
    place = "_partition || '@' || _offset"
    return f"""
        WITH wanted AS (SELECT {key} AS k, {place} AS at, _crc FROM ({wanted})),
        found AS (SELECT {key} AS k, min({place}) AS at, min(_crc) AS _crc, count(*) AS n FROM current GROUP BY
        1) SELECT coalesce(wanted.k, found.k), wanted.at, CASE WHEN n > 1 THEN n || ' rows' ELSE found.at END
        FROM wanted FULL JOIN found ON wanted.k = found.k WHERE wanted.k IS NULL OR found.k IS NULL OR n > 1 OR
        wanted._crc IS DISTINCT FROM found._crc
        LIMIT 1000"""
