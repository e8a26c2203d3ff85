"""Dead letters: read them, count them, and send them back to where they came from.

Redriving keeps its position as the committed offsets of one consumer group and moves it in the same
transaction as the messages, so a dead letter is redriven once however often the command is broken off and
started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from connectors.kafka import (
    KafkaUnavailableError,
    consumer,
    partition_counts,
    producer,
    retrying,
    without_dead_letter_headers,
)
from connectors.settings import KafkaSettings
from schemas.catalogue import CATALOGUE, topic

__all__ = ["REDRIVE_GROUP", "DeadLetter", "counts", "dead_letters", "redrive"]

REDRIVE_GROUP = "dealeriq-redrive"
_BATCH = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter: its own place, where it came from, why and when (wall clock, ms since the epoch)."""

    partition: int
    offset: int
    error: str
    stage: str
    source_topic: str
    source_partition: int | None
    source_offset: int | None
    time_ms: int | None
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: list[tuple[str, bytes]] = field(repr=False)


def counts(settings: KafkaSettings) -> dict[str, tuple[int, int]]:
    """Return topic -> (dead letters kept, of these not yet redriven), for every topic that has any."""
    reader = consumer(settings, REDRIVE_GROUP)
    try:
        there = partition_counts(settings)
        found = {}
        for each in CATALOGUE.values():
            if not each.is_dead_letters or each.name not in there:
                continue
            kept = waiting = 0
            for place, low, high in _range(reader, settings, each.name, there[each.name]):
                kept += high - low
                waiting += max(0, high - max(low, place))
            if kept:
                found[each.name.removesuffix(".dlq")] = (kept, waiting)
        return found
    finally:
        reader.close()


def dead_letters(settings: KafkaSettings, topic_name: str, *, redriven: bool = True) -> Iterator[DeadLetter]:
    """Yield the dead letters of a topic, oldest first; without `redriven` only those not sent back yet.

    Stops at the end that the topic had at the beginning. Raises UnknownTopicError, KafkaUnavailableError.
    """
    reader = consumer(settings, REDRIVE_GROUP)
    try:
        for message in _read(reader, settings, topic_name, redriven):
            yield _letter(message)
    finally:
        reader.close()


def redrive(settings: KafkaSettings, topic_name: str, limit: int | None = None) -> int:
    """Send the waiting dead letters back to their topic, bytes and headers as they were; return how many.

    Messages and position move in one transaction each 500. A message that still cannot be read comes back as a
    new dead letter.
    """
    reader = consumer(settings, REDRIVE_GROUP)
    # One id a topic: a second redrive fences the first off before it reads the position, so none sends twice.
    writer = producer(settings, transactional_id=f"{REDRIVE_GROUP}-{topic_name}", transaction_timeout_ms=60_000)
    sent = 0
    try:
        writer.init_transactions(30.0)
        batch: list[Any] = []
        for message in _read(reader, settings, topic_name, redriven=False):
            batch.append(message)
            if len(batch) == _BATCH or (limit is not None and sent + len(batch) == limit):
                sent += _send(reader, writer, topic_name, batch)
                batch = []
                if sent == limit:
                    return sent
        return sent + (_send(reader, writer, topic_name, batch) if batch else 0)
    finally:
        reader.close()


def _send(reader: Any, writer: Any, topic_name: str, batch: list[Any]) -> int:
    writer.begin_transaction()
    try:
        nexts: dict[int, int] = {}
        for message in batch:
            headers = without_dead_letter_headers(message.headers())
            writer.produce(topic_name, message.value(), key=message.key(), headers=headers)
            nexts[message.partition()] = message.offset() + 1
        places = [TopicPartition(f"{topic_name}.dlq", number, offset) for number, offset in nexts.items()]
        writer.send_offsets_to_transaction(places, reader.consumer_group_metadata(), 30.0)
        writer.commit_transaction(30.0)
    except BaseException:
        writer.abort_transaction(30.0)
        raise
    return len(batch)


def _read(reader: Any, settings: KafkaSettings, topic_name: str, redriven: bool) -> Iterator[Any]:
    name = topic(topic_name).dead_letters
    partitions = partition_counts(settings).get(name, 0)
    ends: dict[int, int] = {}
    start = []
    for number, (place, low, high) in enumerate(_range(reader, settings, name, partitions)):
        begin = low if redriven else max(low, place)
        if begin < high:
            ends[number] = high
            start.append(TopicPartition(name, number, begin))
    if not start:
        return
    reader.assign(start)
    idle = 0
    while ends:
        message = reader.poll(1.0)
        for number in [n for n, end in ends.items() if _position(reader, name, n) >= end]:
            del ends[number]  # transaction markers take offsets too, so the position says more than the message
        if message is None:
            idle += 1
            if idle > 30:
                raise KafkaUnavailableError(f"{name} gives no message for 30 s before its end")
            continue
        idle = 0
        if message.error() is not None:
            raise KafkaUnavailableError(f"{name} cannot be read: {message.error().str()}")
        yield message


def _range(reader: Any, settings: KafkaSettings, name: str, partitions: int) -> list[tuple[int, int, int]]:
    """(committed position or 0, first offset, end offset) of each partition."""
    wanted = [TopicPartition(name, number) for number in range(partitions)]
    if not wanted:
        return []
    # The first question about a group after a broker's start finds its coordinator still loading.
    places = retrying(lambda: [each.offset for each in reader.committed(wanted, timeout=10.0)], settings)
    marks = retrying(lambda: [reader.get_watermark_offsets(each, timeout=10.0) for each in wanted], settings)
    return [(max(place, 0), low, high) for place, (low, high) in zip(places, marks, strict=True)]


def _position(reader: Any, name: str, number: int) -> int:
    offset = int(reader.position([TopicPartition(name, number)])[0].offset)
    return offset if offset >= 0 else OFFSET_BEGINNING


def _letter(message: Any) -> DeadLetter:
    headers = message.headers() or []
    said = {name: (value or b"").decode(errors="replace") for name, value in headers if name.startswith("dlq_")}

    def number(name: str) -> int | None:
        text = said.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else None

    return DeadLetter(
        partition=message.partition(),
        offset=message.offset(),
        error=said.get("dlq_error", "no reason was given"),
        stage=said.get("dlq_stage", ""),
        source_topic=said.get("dlq_topic", ""),
        source_partition=number("dlq_partition"),
        source_offset=number("dlq_offset"),
        time_ms=number("dlq_time"),
        key=message.key(),
        value=message.value(),
        headers=without_dead_letter_headers(headers),
    )
