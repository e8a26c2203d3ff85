"""What was seen of the vectors of one kind: a record of `embeddings.monitors`, and the log of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from connectors.settings import KafkaSettings, RegistrySettings
from models.topic_log import OnceLog
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


class SeenLog(OnceLog[Seen]):
    """Every observation of vectors."""

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings) -> None:
        super().__init__(kafka, registry, TOPIC, "/models/embeddings/monitors", Seen, attrgetter("kind"))
