"""The ledger of what was already written: an entry for each import, player and connection, in topic `imports`.

An entry is written in the same Kafka transaction as the rows that it counts, so the two agree after any
crash. The topic is compacted; the newest entry of an id counts."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from connectors.whole import WholeTopic
from schemas.catalogue import topic
from schemas.codec import Decoder

__all__ = ["TOPIC", "LedgerEntry", "read_ledger"]

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
    whole = WholeTopic(kafka, TOPIC, "dealeriq-ledger")
    try:
        for message in whole.records(timeout_s):
            if message.value() is not None:
                entry = LedgerEntry(**decoder.decode(message.value()))
                entries[entry.import_id] = entry
    finally:
        whole.close()
    return entries
