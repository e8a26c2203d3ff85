"""The lake against the topics: rows equal records, and current tables hold what their tables give.

A table is compared at one Delta version, up to the positions that this version carries: each record below them
has one row, with the same CRC-32 and time; the fields of a sample, and of all events that were decoded anyway,
are compared one by one. What lies behind the positions is on its way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import duckdb
import numpy as np
import polars as pl
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from connectors.identity import id_field
from connectors.kafka import KafkaUnavailableError, consumer
from connectors.lake import LakeTableMissingError, Root, open_delta, positions, relation, version
from connectors.lake.current import has_current
from connectors.lake.table import read_positions
from connectors.registry import Registry
from schemas.catalogue import topic as declared
from schemas.codec import Decoder, UndecodableError
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding
from streams.verify.log import TopicReader

__all__ = ["LakeCheck", "verify_table"]

_BATCH = 20_000
_EXAMPLES = 1_000  # values kept of each batch, whose fields are compared
_RANGES, _LENGTH = 2, 500
_SILENCE_S = 60
Place = tuple[int, int]


@dataclass
class LakeCheck:
    """One table as it was compared: `wrong` are the positions whose rows differ, what repair writes anew."""

    topic: str
    rows: int = 0
    records: int = 0
    fields: int = 0
    behind: int = 0
    findings: list[Finding] = field(default_factory=list)
    wrong: set[Place] = field(default_factory=set)


@dataclass
class _Records:
    """Every record that was read: position, time and CRC, and some values."""

    partition: list[NDArray[np.int64]] = field(default_factory=list)
    offset: list[NDArray[np.int64]] = field(default_factory=list)
    timestamp: list[NDArray[np.int64]] = field(default_factory=list)
    crc: list[NDArray[np.int64]] = field(default_factory=list)
    examples: dict[Place, bytes | None] = field(default_factory=dict)

    def frame(self) -> pl.DataFrame:
        columns = {
            "_partition": self.partition,
            "_offset": self.offset,
            "_timestamp": self.timestamp,
            "_crc": self.crc,
        }
        none = np.zeros(0, np.int64)
        return pl.DataFrame({name: np.concatenate([none, *parts]) for name, parts in columns.items()})


def verify_table(
    root: Root,
    broker: Broker,
    registry: Registry,
    topic: str,
    *,
    reader: TopicReader | None = None,
    sampled: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> LakeCheck:
    """Compare a topic's table with its records: all of them, or of each partition some ranges (`sampled`).

    `reader` has read the topic already, and is asked to read on where the table is ahead of it.

    Raises KafkaUnavailableError and what reading the lake raises.
    """
    check = LakeCheck(topic)
    ends, firsts = broker.ends(topic), broker.firsts(topic)
    # A current table follows its topic's: looked at first, its positions lie within the version that is read.
    current = None if sampled else _current(root, topic)
    try:
        at = version(root, topic)
        held = positions(root, topic, at)
    except LakeTableMissingError:
        check.behind = sum(end - firsts.get(p, 0) for p, end in ends.items())
        return check
    ends = broker.ends(topic)
    for partition, offset in sorted(held.items()):
        if offset > ends.get(partition, 0):
            check.findings.append(
                Finding(
                    "position",
                    "lake",
                    topic,
                    (),
                    f"partition {partition}",
                    "",
                    f"{ends.get(partition, 0)} or less",
                    offset,
                )
            )
    upto = {p: min(held.get(p, 0), end) for p, end in ends.items()}
    check.behind = sum(end - max(upto.get(p, 0), firsts.get(p, 0)) for p, end in ends.items())
    ranges = _ranges(firsts, upto, sampled)
    if reader is None or sampled:
        records = _read(broker, topic, ranges, pause)
        wanted, examples = records.frame(), records.examples
    else:
        if any(offset > reader.ends.get(p, 0) for p, offset in upto.items()):
            reader.read(ends)
        wanted, examples = _known(reader, upto), reader.examples
    with duckdb.connect(config={"threads": 1 if sampled else 2}) as sql:
        rows = relation(sql, root, topic, version=at)
        rows.create_view("lake")
        _check_beyond(check, sql, held)
        inside = " OR ".join(
            f"(_partition = {p} AND _offset BETWEEN {low} AND {high - 1})"
            for p, parts in ranges.items()
            for low, high in parts
        )
        found = sql.sql(
            "SELECT _partition::BIGINT AS _partition, _offset, coalesce(_timestamp, -1) AS _timestamp, "
            f"coalesce(_crc, -1) AS _crc FROM lake WHERE {inside or 'false'}"
        ).pl()
        check.rows, check.records = len(found), len(wanted)
        _check_rows(check, wanted, found)
        pause()
        check.fields = _check_fields(check, sql, registry, examples)
        if current is not None:
            _check_current(check, sql, root, *current)
    return check


def _ranges(firsts: Ends, upto: Ends, sampled: bool) -> dict[int, list[tuple[int, int]]]:
    """Return which offsets of each partition to compare: [low, high)."""
    found: dict[int, list[tuple[int, int]]] = {}
    for partition, end in upto.items():
        low = firsts.get(partition, 0)
        if end <= low:
            continue
        if not sampled or end - low <= _RANGES * _LENGTH:
            found[partition] = [(low, end)]
            continue
        starts = sorted(random.sample(range(low, end - _LENGTH, _LENGTH), _RANGES))
        found[partition] = [(start, start + _LENGTH) for start in starts]
    return found


def _read(
    broker: Broker, topic: str, ranges: Mapping[int, Sequence[tuple[int, int]]], pause: Callable[[], None]
) -> _Records:
    records = _Records()
    source = consumer(broker.kafka, "dealeriq-verify")
    try:
        most = max((len(parts) for parts in ranges.values()), default=0)
        for turn in range(most):
            now = {p: parts[turn] for p, parts in ranges.items() if turn < len(parts)}
            source.assign([TopicPartition(topic, p, low) for p, (low, _) in now.items()])
            left, silent = set(now), 0
            while left:
                messages = [
                    each
                    for each in source.consume(_BATCH, 0.1)
                    if each.error() is None and each.offset() < now[each.partition()][1]
                ]
                if messages:
                    _take(records, messages)
                    pause()
                silent = 0 if messages else silent + 1
                if silent > 10 * _SILENCE_S:
                    raise KafkaUnavailableError(f"{topic} gives no record for {_SILENCE_S} s before its end")
                for where in source.position([TopicPartition(topic, p) for p in left]):
                    if where.offset >= now[where.partition][1]:
                        left.discard(where.partition)
    finally:
        source.close()
    return records


def _known(reader: TopicReader, upto: Ends) -> pl.DataFrame:
    index = reader.index()
    most = np.array([upto.get(p, 0) for p in range(max(upto, default=0) + 1)], np.int64)
    inside = index.offset < most[index.partition]
    return pl.DataFrame(
        {
            "_partition": index.partition[inside].astype(np.int64), "_offset": index.offset[inside],
            "_timestamp": index.timestamp[inside], "_crc": index.crc[inside],
        }
    )  # fmt: skip


def _take(records: _Records, messages: Sequence[Any]) -> None:
    count = len(messages)
    values = [each.value() for each in messages]
    records.partition.append(np.fromiter((each.partition() for each in messages), np.int64, count))
    records.offset.append(np.fromiter((each.offset() for each in messages), np.int64, count))
    records.timestamp.append(np.fromiter((each.timestamp()[1] for each in messages), np.int64, count))
    records.crc.append(np.fromiter((-1 if each is None else crc32(each) for each in values), np.int64, count))
    for index in random.sample(range(count), min(count, _EXAMPLES)):
        records.examples[messages[index].partition(), messages[index].offset()] = values[index]


def _check_beyond(check: LakeCheck, sql: Any, held: Ends) -> None:
    """Rows at or behind a table's own position are of nobody's commit."""
    for partition, last in sql.sql(
        "SELECT _partition, max(_offset) FROM lake GROUP BY 1 ORDER BY 1"
    ).fetchall():
        if last >= held.get(partition, 0):
            check.findings.append(
                Finding(
                    "position",
                    "lake",
                    check.topic,
                    (),
                    f"partition {partition}",
                    "",
                    f"above {last}",
                    held.get(partition),
                )
            )


def _check_rows(check: LakeCheck, wanted: pl.DataFrame, found: pl.DataFrame) -> None:
    keys = ["_partition", "_offset"]
    counted = found.group_by(keys).agg(
        count=pl.len(), _timestamp=pl.col("_timestamp").first(), _crc=pl.col("_crc").first(),
        other=pl.col("_crc").n_unique() + pl.col("_timestamp").n_unique() - 2,
    )  # fmt: skip
    both = wanted.join(counted, on=keys, how="full", suffix="_found", coalesce=True).sort(keys)
    differ = both.filter(
        pl.col("_crc").is_null() | pl.col("_crc_found").is_null()
        | (pl.col("count") > 1) | (pl.col("other") > 0)
        | (pl.col("_crc") != pl.col("_crc_found")) | (pl.col("_timestamp") != pl.col("_timestamp_found"))
    )  # fmt: skip
    for row in differ.iter_rows(named=True):
        place = row["_partition"], row["_offset"]
        check.wrong.add(place)
        at = f"{check.topic}[{place[0]}]@{place[1]}"

        def found_one(kind: Any, feature: str, expected: Any, got: Any, at: str = at) -> Finding:
            return Finding(kind, "lake", check.topic, (), feature, "", expected, got, at)

        if row["_crc_found"] is None:
            check.findings.append(found_one("missing-record", "", "a row", None))
        elif row["_crc"] is None:
            check.findings.append(found_one("extra-record", "", None, "a row"))
        elif row["count"] > 1:
            check.findings.append(found_one("duplicate-record", "", "1 row", f"{row['count']} rows"))
        elif row["_crc"] != row["_crc_found"]:
            check.findings.append(found_one("changed-record", "_crc", row["_crc"], row["_crc_found"]))
        else:
            check.findings.append(
                found_one("changed-record", "_timestamp", row["_timestamp"], row["_timestamp_found"])
            )


def _check_fields(
    check: LakeCheck, sql: Any, registry: Registry, examples: Mapping[Place, bytes | None]
) -> int:
    """Compare the fields of the records whose values were kept; return how many fields."""
    if not examples:
        return 0
    schema = declared(check.topic).schema
    decoder = None if schema is None else Decoder.of_topic(check.topic, registry.schema)
    sql.register("places", pl.DataFrame(list(examples), schema=["_p", "_o"], orient="row").to_arrow())
    rows = sql.sql("SELECT lake.* FROM lake JOIN places ON _partition = _p AND _offset = _o")
    names = [each[0] for each in rows.description]
    fields = 0
    for values in rows.fetchall():
        row = dict(zip(names, values, strict=True))
        place = row["_partition"], row["_offset"]
        if place in check.wrong:
            continue
        for name, expected in _fields(decoder, schema, examples[place]).items():
            fields += 1
            if row.get(name) != expected and not (row.get(name) != row.get(name) and expected != expected):
                at = f"{check.topic}[{place[0]}]@{place[1]}"
                check.wrong.add(place)
                check.findings.append(
                    Finding("changed-record", "lake", check.topic, (), name, "", expected, row.get(name), at)
                )
    return fields


def _fields(decoder: Decoder | None, schema: Any, value: bytes | None) -> dict[str, Any]:
    """Return what a record's row must hold."""
    if decoder is None:
        return {"value": value, "_tombstone": value is None}
    names = [each["name"] for each in schema["fields"]]
    if value is not None:
        try:
            return {**decoder.decode(value), "_raw": None, "_tombstone": False}
        except UndecodableError:
            return {**dict.fromkeys(names), "_raw": value, "_tombstone": False}
    return {**dict.fromkeys(names), "_raw": None, "_tombstone": True}


def _current(root: Root, topic: str) -> tuple[int, Ends] | None:
    """Return the version and the positions of a topic's current table; None where it has none."""
    if not has_current(topic):
        return None
    try:
        table = open_delta(root, topic, current=True)
    except LakeTableMissingError:
        return None
    return int(table.version()), read_positions(table, topic)


def _check_current(check: LakeCheck, sql: Any, root: Root, version: int, held: Ends) -> None:
    """The current table, up to its own positions: each key or id once, and the row that should be it."""
    about = declared(check.topic)
    assert about.schema is not None, check.topic
    key = "_key" if about.compacted else str(id_field(check.topic))
    relation(sql, root, check.topic, version=version, current=True).create_view("current")
    below = " OR ".join(f"(_partition = {p} AND _offset < {offset})" for p, offset in held.items()) or "false"
    rows = f"(SELECT * FROM lake WHERE _raw IS NULL AND ({below}))"
    ordered = any(each["name"] == "event_time" for each in about.schema["fields"])
    for value, expected, found in sql.sql(_current_sql(key, about.compacted, ordered, rows)).fetchall():
        name = f"current/{check.topic}"
        check.findings.append(Finding("current", "lake", name, (str(value),), key, "", expected, found))


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
