"""What was seen of the vectors of one kind: a record of `embeddings.monitors`, and the log of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from connectors.kafka import ensure_topics
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from connectors.whole import WholeTopic
from models.written import Writer
from schemas.codec import Decoder
from schemas.errors import UndecodableError
from schemas.ids import derived_id

__all__ = ["TOPIC", "Seen", "SeenLog"]

TOPIC = "embeddings.monitors"


@dataclass(frozen=True)
class Seen:
    """A window of vectors beside the reference (`shift`), or two encoders of the same chunks (`overlap`)."""

    kind: str
    encoder: str
    other: str | None
    monitor: str
    window_start: int
    window_end: int
    owners: int
    value: float | None
    limit: float | None
    alarm: bool
    text: str
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def event_id(self) -> str:
        """The same monitor of the same encoders and window is the same event."""
        what = f"{self.monitor}@{self.encoder}@{self.other or ''}"
        return derived_id(what, self.kind, self.window_start, str(self.window_end))

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def record(self) -> dict[str, Any]:
        """Return it as the topic has it; it happened when its window ended."""
        return {**self.as_dict(), "event_id": self.event_id, "event_time": self.window_end}


class SeenLog:
    """Every observation in the order of the log, each once. Use it as a context manager; catch up before
    reading. Raises KafkaUnavailableError, RegistryUnavailableError.
    """

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings) -> None:
        ensure_topics(kafka, [TOPIC])
        known = Registry(registry)
        schema_id = known.register_all([TOPIC])[f"{TOPIC}-value"]
        self._writer = Writer(kafka, TOPIC, schema_id, "/models/embeddings/monitors")
        self._decoder = Decoder.of_topic(TOPIC, known.schema)
        self._whole = WholeTopic(kafka, TOPIC, "dealeriq-embedding-monitors")
        self._all: dict[str, Seen] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.close()

    def catch_up(self) -> list[Seen]:
        """Read what was written since; return all there is. What cannot be read is passed over."""
        for message in self._whole.records():
            try:
                record = self._decoder.decode(message.value())
            except UndecodableError:
                continue
            identity = record.pop("event_id")
            record.pop("event_time")
            self._all.setdefault(identity, Seen(**record))
        return list(self._all.values())

    def write(self, seen: Seen) -> None:
        """Write an observation."""
        self._writer.write(seen.kind, seen.record())
