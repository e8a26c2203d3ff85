"""Write rows of the lake anew from their records: a commit replaces the rows of some positions, no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import TopicPartition
from deltalake import write_deltalake

from connectors.kafka import KafkaUnavailableError, consumer
from connectors.lake import Root, Rows, open_delta, translated
from connectors.registry import Registry
from streams.verify.broker import Broker
from streams.verify.lake import LakeCheck

__all__ = ["lake_repairs"]

_AT_ONCE = 500
_SILENCE_S = 60


def lake_repairs(
    root: Root, broker: Broker, registry: Registry, check: LakeCheck
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield what would be written of a table, and the act that writes it; safe to repeat.

    A commit of another writer in between makes an act fail as a whole (LakeConflictError).
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

            yield detail, act


def _replace(
    root: Root, broker: Broker, registry: Registry, topic: str, partition: int, offsets: Sequence[int]
) -> bool:
    rows = Rows(topic, registry.schema).of(_records(broker, topic, partition, offsets))
    table = open_delta(root, topic)
    listed = ", ".join(map(str, offsets))
    predicate = f"_partition = {partition} AND _offset IN ({listed})"
    with translated(table.table_uri):
        if rows.num_rows:
            write_deltalake(table, rows, mode="overwrite", predicate=predicate)
        else:
            table.delete(predicate)
    return True


def _records(broker: Broker, topic: str, partition: int, offsets: Sequence[int]) -> list[Any]:
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
