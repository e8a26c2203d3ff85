"""The bridge: from Debezium's change topics to the inbound topics, each change once.

What it writes and the offsets up to which it read commit in one transaction, by the connection's entry in the
ledger. Connect commits a change and its own offset together too, so from the database's log to the
inbound topic nothing is lost and nothing repeated by a kill -9 of any part.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from connectors.cdc.changes import ChangeWriter
from connectors.cdc.config import CdcConfig
from connectors.connections import entry_id
from connectors.importer import inbound
from connectors.kafka import consumer, ensure_topics, partition_counts
from connectors.ledger import TOPIC, LedgerEntry
from connectors.mapping import Mapper
from connectors.outbox import Outbox, OutboxInterruptedError
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings

__all__ = ["Bridge", "BridgeSummary"]

_BATCH = 5_000
_LOOK_S = 1.0  # between looks for topics and partitions that are new
Positions = dict[str, dict[str, int]]


@dataclass
class BridgeSummary:
    """What this run took over: changes read, messages written, and those that went to dead letters."""

    connection: str
    changes: int = 0
    written: int = 0
    dead: int = 0
    resumed_at: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Bridge:
    """Turns the changes of one connection into messages until `stop` is set.

    `watch` is called about once a second, and may raise to end the run: it looks after the connector.
    Raises MappingError before anything is taken over, OutboxFencedError when the connection runs twice.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        registry: RegistrySettings,
        config: CdcConfig,
        *,
        stop: threading.Event,
        watch: Callable[[], None] = lambda: None,
        progress: Callable[[BridgeSummary], None] | None = None,
    ) -> None:
        self._kafka, self._registry, self._config = kafka, registry, config
        self._stop, self._watch, self._progress = stop, watch, progress
        self.summary = BridgeSummary(config.name)
        mappers = [Mapper(inbound(each.topic), each.mapping) for each in config.tables]
        names = sorted({each.topic for each in config.tables})
        ensure_topics(kafka, [TOPIC, *names, *(f"{name}.dlq" for name in names)])
        ids = Registry(registry).register_all(names)
        self._writers = {
            config.source_topic(table): ChangeWriter(
                table, mapper, ids[f"{table.topic}-value"], f"/connect/{config.name}/{table.table}"
            )
            for table, mapper in zip(config.tables, mappers, strict=True)
        }
        how = json.dumps([[each.table, each.topic, each.mapping.digest.hex()] for each in config.tables])
        self._blank = LedgerEntry(
            entry_id(config.name),
            ",".join(dict.fromkeys(each.topic for each in config.tables)),
            "postgresql." + ",".join(each.table for each in config.tables),
            sha256(how.encode()).hexdigest(),
        )

    def run(self) -> BridgeSummary:
        """Take changes over until stopped; an interrupted transaction begins again from the ledger."""
        waits = 0
        while not self._stop.is_set():
            try:
                with Outbox(self._kafka, self._registry, self._blank.import_id) as outbox:
                    self._take_over(outbox)
                waits = 0
            except OutboxInterruptedError:
                if waits == 8:
                    raise
                self._stop.wait(0.25 * 2**waits)
                waits += 1
        return self.summary

    def _take_over(self, outbox: Outbox) -> None:
        entry = outbox.entry or self._blank
        positions: Positions = json.loads(entry.state or "{}")
        self.summary.resumed_at = entry.rows_read
        reader = consumer(self._kafka, f"dealeriq-cdc-{self._config.name}")
        assigned: set[tuple[str, int]] = set()
        look_at = 0.0
        try:
            while not self._stop.is_set():
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + _LOOK_S
                    self._watch()
                    assigned = self._assigned(reader, positions, assigned)
                if not assigned:
                    self._stop.wait(0.1)
                    continue
                messages = reader.consume(_BATCH, timeout=0.05)
                for message in messages:
                    if message.error() is not None and message.error().code() != KafkaError._PARTITION_EOF:
                        raise OutboxInterruptedError(f"changes cannot be read: {message.error().str()}")
                if messages:
                    entry = self._write(outbox, entry, positions, messages)
        finally:
            reader.close()

    def _write(
        self, outbox: Outbox, entry: LedgerEntry, positions: Positions, messages: list[Any]
    ) -> LedgerEntry:
        parts: dict[str, list[Any]] = {}
        for message in messages:
            parts.setdefault(message.topic(), []).append(message)
        written = dead = 0
        for name, part in parts.items():
            ours, refused = self._writers[name].write(part)
            for each in (ours, refused):
                if each.values:
                    outbox.send(each)
            written += len(ours.values)
            dead += len(refused.values)
            for message in part:
                positions.setdefault(name, {})[str(message.partition())] = message.offset() + 1
        entry = replace(
            self._blank,
            rows_read=entry.rows_read + len(messages),
            rows_produced=entry.rows_produced + written,
            rows_rejected=entry.rows_rejected + dead,
            state=json.dumps(positions),
        )
        outbox.commit(entry)
        self.summary.changes += len(messages)
        self.summary.written += written
        self.summary.dead += dead
        if self._progress is not None:
            self._progress(self.summary)
        return entry

    def _assigned(
        self, reader: Any, positions: Positions, before: set[tuple[str, int]]
    ) -> set[tuple[str, int]]:
        """Read partitions that are new, too: a table's topic comes with its first change."""
        counts = partition_counts(self._kafka)
        there = {(name, number) for name in self._writers for number in range(counts.get(name, 0))}
        if there != before:
            reader.assign(
                [
                    TopicPartition(name, number, positions.get(name, {}).get(str(number), 0))
                    for name, number in sorted(there)
                ]
            )
        return there
