"""chats → chats.enriched: the intent, sentiment and urgency of each message."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import RedisError

from schemas.ids import derived_id
from streams.agents.reading import Reader
from streams.agents.stage import Derived, Record, Stage
from streams.agents.subjects import Subject, Subjects

__all__ = ["ChatStage"]


class ChatStage(Stage):
    """Reads what a message says.

    Afterwards it keeps, in the online store, what feedback may ask about the message (`Subjects`).
    """

    name = "chat-agent"
    source = "chats"
    target = "chats.enriched"
    retried = (RedisError,)

    def __init__(self, reader: Reader, subjects: Subjects | None = None) -> None:
        self._reader = reader
        self._subjects = subjects

    def handle(self, records: Sequence[Record]) -> list[Derived]:
        """Return each message with its reading; its id follows from the message and the reader's version."""
        version, encoder = self._reader.version, self._reader.encoder.identity
        readings = self._reader.read([record["text"] for record in records])
        derived = []
        for record, reading in zip(records, readings, strict=True):
            cause = record["event_id"]
            enriched = record | reading._asdict()
            enriched["event_id"] = derived_id(version, cause, record["event_time"], cause)
            enriched["encoder"] = encoder
            enriched["cause_id"] = cause
            derived.append(Derived(record["dealer_id"], enriched, cause))
        return derived

    def after(self, records: Sequence[Record], derived: Sequence[Derived]) -> None:
        """Make the messages findable for feedback."""
        if self._subjects is not None:
            self._subjects.write(
                (
                    "chat",
                    each.record["cause_id"],
                    Subject(each.record["dealer_id"], each.record["intent"], each.record["event_time"]),
                )
                for each in derived
            )
