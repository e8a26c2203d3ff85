"""Records of a topic as the lake must hold them: positions, times, checksums, and some values to look into."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
from confluent_kafka import KafkaError, TopicPartition
from numpy.typing import NDArray

from connectors.kafka import KafkaUnavailableError, consumer
from streams.verify.broker import Broker, Ends

__all__ = ["Place", "Records", "count_records", "ranges", "read_records"]

_BATCH = 20_000
_EXAMPLES = 1_000  # values kept of each batch, whose fields are compared
_RANGES, _LENGTH = 1, 1_000  # of each partition; going to another place takes half a second
_SILENCE_S = 60
Place = tuple[int, int]


@dataclass
class Records:
    """Records that were read: position, time and CRC of each, and some values."""

    partition: list[NDArray[np.int64]] = field(default_factory=list)
    offset: list[NDArray[np.int64]] = field(default_factory=list)
    timestamp: list[NDArray[np.int64]] = field(default_factory=list)
    crc: list[NDArray[np.int64]] = field(default_factory=list)
    examples: dict[Place, bytes | None] = field(default_factory=dict)

    def frame(self) -> pl.DataFrame:
        """Return `_partition`, `_offset`, `_timestamp` (-1: none) and `_crc` (-1: a tombstone) of each."""
        columns = {
            "_partition": self.partition,
            "_offset": self.offset,
            "_timestamp": self.timestamp,
            "_crc": self.crc,
        }
        none = np.zeros(0, np.int64)
        return pl.DataFrame({name: np.concatenate([none, *parts]) for name, parts in columns.items()})


def ranges(firsts: Ends, upto: Ends, sampled: bool) -> dict[int, list[tuple[int, int]]]:
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


def read_records(
    broker: Broker, topic: str, ranges: Mapping[int, Sequence[tuple[int, int]]], pause: Callable[[], None]
) -> Records:
    """Read the records of these ranges of each partition. Raises KafkaUnavailableError."""
    records = Records()
    whole = sum(high - low for parts in ranges.values() for low, high in parts)
    # No more is fetched ahead than is wanted, about.
    source = consumer(broker.kafka, "dealeriq-verify", queued_min_messages=min(max(whole, 1), 100_000))
    try:
        most = max((len(parts) for parts in ranges.values()), default=0)
        for turn in range(most):
            now = {p: parts[turn] for p, parts in ranges.items() if turn < len(parts)}
            batch = min(sum(high - low for low, high in now.values()), _BATCH)
            source.assign([TopicPartition(topic, p, low) for p, (low, _) in now.items()])
            left, silent = set(now), 0
            while left:
                messages = [
                    each
                    for each in source.consume(batch, 0.1)
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


def _take(records: Records, messages: Sequence[Any]) -> None:
    count = len(messages)
    values = [each.value() for each in messages]
    records.partition.append(np.fromiter((each.partition() for each in messages), np.int64, count))
    records.offset.append(np.fromiter((each.offset() for each in messages), np.int64, count))
    records.timestamp.append(np.fromiter((each.timestamp()[1] for each in messages), np.int64, count))
    records.crc.append(np.fromiter((-1 if each is None else crc32(each) for each in values), np.int64, count))
    for index in random.sample(range(count), min(count, _EXAMPLES)):
        records.examples[messages[index].partition(), messages[index].offset()] = values[index]


def count_records(broker: Broker, topic: str, held: Ends, ends: Ends) -> int:
    """Return how many records lie at or behind `held` and before `ends`.

    Offsets do not say it: the end of a transaction takes one too. Raises KafkaUnavailableError.
    """
    left = {p: end for p, end in ends.items() if end > held.get(p, 0)}
    if not left:
        return 0
    count = silent = 0
    source = consumer(broker.kafka, "dealeriq-verify", enable_partition_eof=True)
    try:
        source.assign([TopicPartition(topic, p, held.get(p, 0)) for p in left])
        while left:
            messages = source.consume(_BATCH, 0.1)
            for each in messages:
                number, error = each.partition(), each.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    continue
                if number in left and error is None and each.offset() < left[number]:
                    count += 1
                if number in left and (error is not None or each.offset() >= left[number] - 1):
                    del left[number]
            silent = 0 if messages else silent + 1
            if silent > 10 * _SILENCE_S:
                raise KafkaUnavailableError(f"{topic} gives no record for {_SILENCE_S} s before its end")
    finally:
        source.close()
    return count
