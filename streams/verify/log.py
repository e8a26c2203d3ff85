"""A topic's events as one frame: committed, readable, allowed, and each id once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from confluent_kafka import TopicPartition

from connectors.kafka import consumer, partition_counts
from connectors.registry import Registry
from connectors.settings import KafkaSettings
from schemas.codec import Decoder, UndecodableError
from schemas.validate import problems

__all__ = ["TopicEvents", "end_offsets", "read_events"]


@dataclass(frozen=True)
class TopicEvents:
    """What a topic holds up to `ends` (next offset by partition), and what became of each record."""

    frame: pl.DataFrame
    records: int
    duplicates: int
    rejected: int
    ends: dict[int, int]


def end_offsets(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """Return the next offset of each partition. Raises KafkaUnavailableError."""
    source = consumer(kafka, "dealeriq-verify")
    try:
        count = partition_counts(kafka)[topic]
        return {p: source.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(count)}
    finally:
        source.close()


def read_events(
    kafka: KafkaSettings, registry: Registry, topic: str, columns: Sequence[str], key: str
) -> TopicEvents:
    """Read a topic from its beginning to where it ends now; an id that comes again under its key is left out.

    `columns` are kept, with `event_id`, `event_time` (ms) and `_order`, the place in the partition.
    """
    ends = end_offsets(kafka, topic)
    decoder = Decoder.of_topic(topic, registry.schema)
    wanted = list(dict.fromkeys([*columns, "event_id", "event_time", key]))
    kept: dict[str, list[object]] = {name: [] for name in [*wanted, "_order"]}
    appends = [(name, kept[name].append) for name in wanted]
    records = rejected = 0
    source = consumer(kafka, "dealeriq-verify")
    left = {partition for partition, end in ends.items() if end > 0}
    source.assign([TopicPartition(topic, partition, 0) for partition in left])
    try:
        while left:
            for message in source.consume(10_000, 0.2):
                if message.error() is not None:
                    continue
                partition, offset = message.partition(), message.offset()
                if offset >= ends[partition]:
                    continue
                records += 1
                try:
                    record = decoder.decode(message.value())
                except UndecodableError:
                    rejected += 1
                    continue
                if problems(topic, record):
                    rejected += 1
                    continue
                for name, append in appends:
                    append(record[name])
                kept["_order"].append(offset)
            # Transaction markers take offsets that no message has: the consumer's own position tells the end.
            for where in source.position([TopicPartition(topic, partition) for partition in left]):
                if where.offset >= ends[where.partition]:
                    left.discard(where.partition)
    finally:
        source.close()
    frame = pl.DataFrame(kept, strict=False)
    unique = frame.unique(subset=["event_id", key], keep="first", maintain_order=True) if len(frame) else frame
    return TopicEvents(unique, records, len(frame) - len(unique), rejected, ends)
