"""Lake tables without Kafka: write given records as the lake view would have written them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.lake import Lake, LakeTable, Rows
from schemas.catalogue import topic
from schemas.codec import Encoder
from schemas.envelope import headers as envelope

SCHEMA_ID = 1
NOW = 1_780_000_000_000


@dataclass
class FakeMessage:
    """A message as confluent-kafka gives it."""

    name: str
    number: int
    at: int
    data: bytes | None
    name_key: bytes | None = None
    time_ms: int = NOW
    head: list[tuple[str, bytes]] = field(default_factory=list)

    def topic(self) -> str:
        return self.name

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.name_key

    def value(self) -> bytes | None:
        return self.data

    def headers(self) -> list[tuple[str, bytes]]:
        return self.head

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time_ms

    def error(self) -> None:
        return None


def schema_of(topic_name: str) -> Any:
    """What a registry would say of SCHEMA_ID."""
    return lambda _: topic(topic_name).schema


def messages(
    topic_name: str,
    records: Iterable[Mapping[str, Any] | bytes | None],
    *,
    partition: int = 0,
    offset: int = 0,
    time_ms: int = NOW,
    source: str = "/tests",
) -> list[FakeMessage]:
    """Return messages of records (dict), poison (bytes) and tombstones (None), at ascending offsets."""
    declared = topic(topic_name)
    encoder = None if declared.schema is None else Encoder(topic_name, SCHEMA_ID)
    found = []
    for at, record in enumerate(records, offset):
        if isinstance(record, Mapping):
            assert encoder is not None
            key = str(record[declared.key[0]])
            head = envelope(f"{topic_name}/{at}", topic_name, source, record.get("event_time", time_ms), key)
            data: bytes | None = encoder.encode(dict(record))
        else:
            key, head, data = "k", [], record
        found.append(FakeMessage(topic_name, partition, at, data, key.encode(), time_ms, head))
    return found


def write_events(
    root: str | Path | Lake,
    topic_name: str,
    records: Sequence[Mapping[str, Any] | bytes | None],
    *,
    partition: int = 0,
    offset: int | None = None,
    time_ms: int = NOW,
) -> int:
    """Append records to a topic's table in one commit, behind what is there; return the next offset."""
    table = LakeTable(root, topic_name)
    start = table.positions().get(partition, 0) if offset is None else offset
    rows = Rows(topic_name, schema_of(topic_name)).of(
        messages(topic_name, records, partition=partition, offset=start, time_ms=time_ms)
    )
    table.append(rows, {partition: start + len(records)})
    return start + len(records)


def order(number: int, **changed: Any) -> dict[str, Any]:
    """An order line, whole and in bounds."""
    return {
        "event_id": f"e{number}", "order_id": f"o{number}", "line": 0, "dealer_id": f"D{number % 7}",
        "customer_id": None if number % 3 else f"C{number}", "product_id": f"P{number % 40}",
        "category": "GROCERY", "brand": None, "quantity": 1 + number % 5, "amount": number / 4, "discount": 0.0,
        "currency": "USD", "channel": "store", "event_time": 1_483_228_800_000 + number * 1_000,
    } | changed  # fmt: skip
