"""The lake against the topics: rows equal records, and current tables hold what their tables give.

A table is compared at one Delta version, up to the positions that this version carries: each record below them
has one row, with the same CRC-32 and time; the fields of a sample, and of all events that were decoded anyway,
are compared one by one. What lies behind the positions is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from connectors.duck import connect_duckdb
from connectors.lake import LakeTableMissingError, Root, positions, relation, version
from connectors.registry import Registry
from schemas.catalogue import topic as declared
from schemas.codec import Decoder, UndecodableError
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding
from streams.verify.lake_current import current_findings, current_state
from streams.verify.lake_records import Place, count_records, ranges, read_records
from streams.verify.log import TopicReader

__all__ = ["LakeCheck", "verify_table"]

_MOST_COUNTED = 100_000  # of what a sample is behind; more are told as offsets


@dataclass
class LakeCheck:
    """One table as it was compared, and what repair writes anew.

    `wrong` are the positions whose rows differ; `moved` the right positions of the partitions whose recorded
    one is not right; `current` says that the current table differs.
    """

    topic: str
    rows: int = 0
    records: int = 0
    fields: int = 0
    behind: int = 0
    findings: list[Finding] = field(default_factory=list)
    wrong: set[Place] = field(default_factory=set)
    moved: Ends = field(default_factory=dict)
    current: bool = False

    def add(self, kind: Any, feature: str, expected: Any, found: Any, at: str = "") -> None:
        """Add a finding of this table."""
        self.findings.append(Finding(kind, "lake", self.topic, (), feature, "", expected, found, at))


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
    current = None if sampled else current_state(root, topic)
    try:
        at = version(root, topic)
        held = positions(root, topic, at)
    except LakeTableMissingError:
        check.behind = _behind(broker, topic, firsts, ends, sampled)
        return check
    ends = broker.ends(topic)
    with connect_duckdb(threads=pl.thread_pool_size()) as sql:
        rows = relation(sql, root, topic, version=at)
        rows.create_view("lake")
        upto = _check_positions(check, sql, held, ends)
        check.behind = _behind(
            broker, topic, {p: max(upto.get(p, 0), firsts.get(p, 0)) for p in ends}, ends, sampled
        )
        compared = ranges(firsts, upto, sampled)
        if reader is None or sampled:
            records = read_records(broker, topic, compared, pause)
            wanted, examples = records.frame(), records.examples
        else:
            if any(offset > reader.ends.get(p, 0) for p, offset in upto.items()):
                reader.read(ends)
            wanted, examples = _known(reader, upto), reader.examples
        inside = " OR ".join(
            f"(_partition = {p} AND _offset BETWEEN {low} AND {high - 1})"
            for p, parts in compared.items()
            for low, high in parts
        )
        beyond = " OR ".join(f"(_partition = {p} AND _offset >= {end})" for p, end in ends.items())
        found = sql.sql(
            "SELECT _partition::BIGINT AS _partition, _offset, coalesce(_timestamp, -1) AS _timestamp, "
            f"coalesce(_crc, -1) AS _crc FROM lake WHERE {inside or 'false'} OR {beyond or 'false'}"
        ).pl()
        check.rows, check.records = len(found), len(wanted)
        _check_rows(check, wanted, found, ends)
        pause()
        check.fields = _check_fields(check, sql, registry, examples)
        if current is not None:
            differing = list(current_findings(sql, root, topic, *current))
            check.findings += differing
            check.current = bool(differing)
    return check


def _behind(broker: Broker, topic: str, held: Ends, ends: Ends, sampled: bool) -> int:
    """Return how many records are not in the table yet."""
    offsets = sum(max(end - held.get(p, 0), 0) for p, end in ends.items())
    if sampled and offsets > _MOST_COUNTED:
        return offsets
    return count_records(broker, topic, held, ends)


def _check_positions(check: LakeCheck, sql: Any, held: Ends, ends: Ends) -> Ends:
    """Compare the table's positions with its rows and the topic's ends; return up to where rows must be right.

    A position behind the topic's end was never committed by a lake view, and rows at or behind their own
    table's position came with no commit of one: the right position is then behind these rows.
    """
    last = dict(sql.sql("SELECT _partition, max(_offset) FROM lake GROUP BY 1").fetchall())
    upto = {}
    for partition in sorted({*ends, *held}):
        found, end = held.get(partition, 0), ends.get(partition, 0)
        right = min(max(found, last.get(partition, -1) + 1), end)
        upto[partition] = right
        if found != right:
            check.moved[partition] = right
            check.add("position", f"partition {partition}", right, held.get(partition))
    return upto


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


def _check_rows(check: LakeCheck, wanted: pl.DataFrame, found: pl.DataFrame, ends: Ends) -> None:
    """Compare rows with records. What Kafka compacted away is still in the lake, and right there."""
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
    compacted = declared(check.topic).compacted
    for row in differ.iter_rows(named=True):
        place = row["_partition"], row["_offset"]
        gone = row["_crc"] is None and row["count"] == 1
        if compacted and gone and place[1] < ends.get(place[0], 0):
            continue
        check.wrong.add(place)
        at = f"{check.topic}[{place[0]}]@{place[1]}"

        if row["_crc_found"] is None:
            check.add("missing-record", "", "a row", None, at)
        elif row["_crc"] is None:
            check.add("extra-record", "", None, "a row", at)
        elif row["count"] > 1:
            check.add("duplicate-record", "", "1 row", f"{row['count']} rows", at)
        else:
            name = "_crc" if row["_crc"] != row["_crc_found"] else "_timestamp"
            check.add("changed-record", name, row[name], row[f"{name}_found"], at)


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
                check.add("changed-record", name, expected, row.get(name), at)
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
