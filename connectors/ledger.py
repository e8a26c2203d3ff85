"""The ledger of what was already written: an entry for each import, player and connection, in topic `imports`.

An entry is written in the same Kafka transaction as the rows that it counts, so the two agree after any
crash. The topic is compacted; the newest entry of an id counts."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.kafka import KafkaUnavailableError, consumer
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from schemas.catalogue import topic
from schemas.codec import Decoder

__all__ = ["TOPIC", "LedgerEntry", "end_offset", "read_ledger"]

TOPIC = "imports"


@dataclass(frozen=True)
class LedgerEntry:
    """How far one import came. `rows_read` is where a broken one goes on; `event_time` is wall clock, ms.

    A connection's entry also holds `state`, JSON in its source's own terms: what it goes on from.
    """

    import_id: str
    topic: str
    source: str
    fingerprint: str
    rows_read: int = 0
    rows_produced: int = 0
    rows_rejected: int = 0
    finished: bool = False
    event_time: int = 0
    state: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the entry as the topic's record, stamped with the time of now."""
        return asdict(replace(self, event_time=time.time_ns() // 1_000_000))


def read_ledger(
    kafka: KafkaSettings, registry: RegistrySettings, timeout_s: float = 90.0
) -> dict[str, LedgerEntry]:
    """Return the newest committed entry of each id.

    Everything written before the call is seen: an entry that stands behind someone's open transaction is waited
    for, because reading past it would repeat rows. Raises KafkaUnavailableError after `timeout_s`.
    """
    schema = topic(TOPIC).schema
    assert schema is not None
    decoder = Decoder(Registry(registry).schema, schema)
    entries: dict[str, LedgerEntry] = {}
    reader = consumer(kafka, "dealeriq-ledger", enable_partition_eof=True)
    newest = consumer(kafka, "dealeriq-ledger", isolation_level="read_uncommitted")
    try:
        places = [TopicPartition(TOPIC, number, 0) for number in range(kafka.partitions_of(topic(TOPIC)))]
        ends = {place.partition: end_offset(newest, place, timeout_s) for place in places}
        waiting = {partition for partition, end in ends.items() if end > 0}
        reader.assign(places)
        give_up = time.monotonic() + timeout_s
        while waiting:
            if time.monotonic() > give_up:
                raise KafkaUnavailableError(
                    f"the ledger of imports could not be read in {timeout_s:.0f} s",
                    remedy="Another import may hold an open transaction; try again when it has ended.",
                )
            for message in reader.consume(1000, timeout=0.1):
                error = message.error()
                if error is not None:
                    if (
                        error.code() == KafkaError._PARTITION_EOF
                        and message.offset() >= ends[message.partition()]
                    ):
                        waiting.discard(message.partition())
                    continue
                if message.value() is not None:
                    entry = LedgerEntry(**decoder.decode(message.value()))
                    entries[entry.import_id] = entry
                if message.offset() + 1 >= ends[message.partition()]:
                    waiting.discard(message.partition())
    finally:
        reader.close()
        newest.close()
    return entries


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
