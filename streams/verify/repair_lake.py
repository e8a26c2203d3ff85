"""Repair the lake from the log: a commit replaces the rows of some positions, no others, or moves positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import TopicPartition
from deltalake import CommitProperties, Transaction, write_deltalake

from connectors.kafka import KafkaUnavailableError, consumer
from connectors.lake import Root, Rows, app_id, arrow_schema, open_delta, refresh, translated
from connectors.registry import Registry
from streams.verify.broker import Broker
from streams.verify.lake import LakeCheck

__all__ = ["lake_repairs", "records_at"]

_AT_ONCE = 500
_SILENCE_S = 60


def lake_repairs(
    root: Root, broker: Broker, registry: Registry, check: LakeCheck
) -> Iterator[tuple[str, str, Callable[[], bool]]]:
    """Yield for a table what would be done (write or move), to what, and the act that does it; safe to repeat.

    Rows come first, then positions, then the current table, which is made from both. A commit of another writer
    in between makes an act fail as a whole (LakeConflictError).
    """
    places: dict[int, list[int]] = {}
    for partition, offset in sorted(check.wrong):
        places.setdefault(partition, []).append(offset)
    for partition, offsets in places.items():
        for start in range(0, len(offsets), _AT_ONCE):
            part = offsets[start : start + _AT_ONCE]
            shown = ", ".join(map(str, part[:5])) + (", ..." if len(part) > 5 else "")
            detail = f"{len(part)} records of partition {partition}: {shown}"

            def act(partition: int = partition, part: Sequence[int] = part) -> bool:
                return _replace(root, broker, registry, check.topic, partition, part)

            yield "write", detail, act
    if check.moved:
        moved = ", ".join(f"partition {p} to {offset}" for p, offset in sorted(check.moved.items()))
        yield "move", f"positions: {moved}", lambda: _move(root, check.topic, check.moved)
    if check.current:
        yield "write", "the current table, from the whole table", lambda: _made_anew(root, check.topic)


def _move(root: Root, topic: str, positions: Mapping[int, int]) -> bool:
    table = open_delta(root, topic)
    moved = [Transaction(app_id(topic, p), offset) for p, offset in sorted(positions.items())]
    nothing = arrow_schema(topic).empty_table()
    with translated(table.table_uri):
        write_deltalake(
            table,
            nothing,
            mode="append",
            schema_mode="merge",
            commit_properties=CommitProperties(app_transactions=moved),
        )
    return True


def _made_anew(root: Root, topic: str) -> bool:
    refresh(root, topic, anew=True)
    return True


def _replace(
    root: Root, broker: Broker, registry: Registry, topic: str, partition: int, offsets: Sequence[int]
) -> bool:
    rows = Rows(topic, registry.schema).of(records_at(broker, topic, partition, offsets))
    table = open_delta(root, topic)
    listed = ", ".join(map(str, offsets))
    predicate = f"_partition = {partition} AND _offset IN ({listed})"
    with translated(table.table_uri):
        if rows.num_rows:
            write_deltalake(table, rows, mode="overwrite", predicate=predicate)
        else:
            table.delete(predicate)
    return True


def records_at(broker: Broker, topic: str, partition: int, offsets: Sequence[int]) -> list[Any]:
    """Return the records at these offsets; one that the topic does not have is left out."""
    wanted = set(offsets)
    found = []
    source = consumer(broker.kafka, "dealeriq-verify")
    try:
        end = min(max(offsets) + 1, broker.ends(topic).get(partition, 0))
        if end <= min(offsets):
            return []
        source.assign([TopicPartition(topic, partition, min(offsets))])
        silent = 0
        while source.position([TopicPartition(topic, partition)])[0].offset < end:
            messages = source.consume(10_000, 0.1)
            found += [each for each in messages if each.error() is None and each.offset() in wanted]
            if any(each.error() is None and each.offset() >= end for each in messages):
                break
            silent = 0 if messages else silent + 1
            if silent > 10 * _SILENCE_S:
                raise KafkaUnavailableError(f"{topic}[{partition}] gives no record for {_SILENCE_S} s")
    finally:
        source.close()
    return found
