"""Every message of a topic, one after the other, up to where it ended."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

from confluent_kafka import TopicPartition

from connectors.kafka import KafkaUnavailableError, consumer
from streams.verify.broker import Broker, Ends

__all__ = ["Message", "messages"]

_SILENT = 100


class Message(NamedTuple):
    """A message: where it stands, its key as text, and its bytes; None is a tombstone."""

    partition: int
    key: str
    offset: int
    value: bytes | None


def messages(broker: Broker, topic: str, ends: Ends, pause: Callable[[], None]) -> Iterable[Message]:
    """Yield the whole topic up to `ends`, in the order of each partition. Raises KafkaUnavailableError."""
    reading = consumer(broker.kafka, f"verify-{uuid.uuid4().hex}")
    try:
        firsts = broker.firsts(topic)
        left = {partition for partition, end in ends.items() if end > firsts.get(partition, 0)}
        reading.assign([TopicPartition(topic, partition, firsts.get(partition, 0)) for partition in left])
        silent = 0
        while left:
            found = reading.consume(1_000, 0.2)
            silent = 0 if found else silent + 1
            if silent > _SILENT:
                raise KafkaUnavailableError(f"{topic} gives no record before its end")
            for each in found:
                if each.error() is None:
                    key = (each.key() or b"").decode(errors="replace")
                    yield Message(each.partition(), key, each.offset(), each.value())
            for place in reading.position([TopicPartition(topic, partition) for partition in left]):
                if place.offset >= ends[place.partition]:
                    left.discard(place.partition)
            pause()
    finally:
        reading.close()
