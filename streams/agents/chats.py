"""chats → chats.enriched: the intent, sentiment and urgency of each message."""

from __future__ import annotations

from collections.abc import Sequence

from models.text import EncoderUnavailableError
from schemas.ids import derived_id
from streams.agents.reading import Reader
from streams.agents.stage import Derived, MapStage, Record

__all__ = ["ChatStage"]


class ChatStage(MapStage):
    """Reads what a message says."""

    name = "chat-agent"
    source = "chats"
    target = "chats.enriched"
    retried = (EncoderUnavailableError,)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def handle(self, records: Sequence[Record]) -> list[Derived]:
        """Return each message with its reading; its id follows from the message and the reader's version."""
        readings = self._reader.read([record["text"] for record in records])
        version, encoder = (
            self._reader.version,
            self._reader.reads_with,
        )  # of this batch: models swap between two
        derived = []
        for record, reading in zip(records, readings, strict=True):
            cause = record["event_id"]
            enriched = record | reading._asdict()
            enriched["event_id"] = derived_id(version, cause, record["event_time"], cause)
            enriched["encoder"] = encoder
            enriched["cause_id"] = cause
            derived.append(Derived(record["dealer_id"], enriched, cause))
        return derived
