"""Small topics read whole: from their first record to what was there when the reading began."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.kafka import KafkaUnavailableError, consumer
from connectors.settings import KafkaSettings
from schemas.catalogue import topic

__all__ = ["WholeTopic", "end_offset"]


class WholeTopic:
    """The committed records of a topic, in each partition's order; ask again and get what came since.

    What an open transaction holds back is waited for, because whoever decides by what stands there must not
    read past it. `group` is a name for the broker's logs; nothing is committed. `start` are the offsets to
    begin at, by partition; the first record where none is given. Close it.
    """

    def __init__(
        self, kafka: KafkaSettings, name: str, group: str, start: Mapping[int, int] | None = None
    ) -> None:
        begin = start or {}
        self._name = name
        self._reader = consumer(kafka, group, enable_partition_eof=True)
        self._newest = consumer(kafka, group, isolation_level="read_uncommitted")
        numbers = range(kafka.partitions_of(topic(name)))
        self._places = [TopicPartition(name, n, begin.get(n, 0)) for n in numbers]
        self._reader.assign(self._places)
        self._next = {place.partition: place.offset for place in self._places}

    def close(self) -> None:
        """Let go of the connections."""
        self._reader.close()
        self._newest.close()

    def records(self, timeout_s: float = 90.0, upto: dict[int, int] | None = None) -> Iterator[Any]:
        """Yield the messages from where the last call ended up to the end as of now, or to the offsets `upto`.

        Raises KafkaUnavailableError when they are not there after `timeout_s`.
        """
        ends = upto or {place.partition: end_offset(self._newest, place, timeout_s) for place in self._places}
        waiting = {partition for partition, end in ends.items() if end > self._next[partition]}
        give_up = time.monotonic() + timeout_s
        while waiting:
            if time.monotonic() > give_up:
                raise KafkaUnavailableError(
                    f"{self._name} could not be read to its end in {timeout_s:.0f} s",
                    remedy="A writer may hold an open transaction; try again when it has ended.",
                )
            for message in self._reader.consume(1000, timeout=0.1):
                error = message.error()
                partition, offset = message.partition(), message.offset()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF and offset >= ends.get(partition, 0):
                        self._next[partition] = max(self._next[partition], offset)
                        waiting.discard(partition)
                    continue
                self._next[partition] = offset + 1
                yield message
                if offset + 1 >= ends.get(partition, 0):
                    waiting.discard(partition)


def end_offset(reader: Consumer, place: TopicPartition, timeout_s: float = 30.0) -> int:
    """Return the offset behind a partition's last record, as the consumer's isolation sees it.

    A topic that was created a moment ago has no leader yet: that is waited for. Raises KafkaUnavailableError.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            return int(reader.get_watermark_offsets(place, timeout=5.0)[1])
        except KafkaException as error:
            if time.monotonic() > give_up:
                raise KafkaUnavailableError(
                    f"{place.topic}/{place.partition} does not tell its end: {error.args[0].str()}"
                ) from error
            time.sleep(0.1)
