"""What a monitor saw of a version in a window: a record of `model.monitors`, and the log of all of them."""

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

__all__ = ["TOPIC", "Observation", "ObservationLog"]

TOPIC = "model.monitors"


@dataclass(frozen=True)
class Observation:
    """One monitor, one version, one window of event time. `decided_at` is the offset of the decision that gave
    the version its role, which tells one canary of a version from another. `value` is None where the window was
    not judged, `limit` where there is none; `alarm` asks for a training.
    """

    model: str
    model_version: str
    role: str
    decided_at: int
    monitor: str
    window_start: int
    window_end: int
    rows: int
    value: float | None
    limit: float | None
    alarm: bool
    text: str
    details: Mapping[str, float] = field(default_factory=dict)
    cause_id: str = ""

    @property
    def event_id(self) -> str:
        """The same monitor of the same version and window is the same event."""
        what = f"{self.monitor}@{self.model_version}"
        if self.monitor == "canary":
            what = f"{what}@{self.decided_at}"
        return derived_id(what, self.model, self.window_start, str(self.window_end))

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def record(self) -> dict[str, Any]:
        """Return it as the topic has it; it happened when its window ended."""
        return {**self.as_dict(), "event_id": self.event_id, "event_time": self.window_end}


class ObservationLog:
    """Every observation in the order of the log, each once. Use it as a context manager; catch up before
    reading. Raises KafkaUnavailableError, RegistryUnavailableError.
    """

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings) -> None:
        ensure_topics(kafka, [TOPIC])
        known = Registry(registry)
        self._writer = Writer(kafka, TOPIC, known.register_all([TOPIC])[f"{TOPIC}-value"], "/models/monitors")
        self._decoder = Decoder.of_topic(TOPIC, known.schema)
        self._whole = WholeTopic(kafka, TOPIC, "dealeriq-monitors")
        self._all: dict[str, Observation] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.close()

    def catch_up(self) -> list[Observation]:
        """Read what was written since; return all there is. What cannot be read is passed over."""
        for message in self._whole.records():
            try:
                record = self._decoder.decode(message.value())
            except UndecodableError:
                continue
            self._all.setdefault(
                record.pop("event_id"), Observation(**{k: v for k, v in record.items() if k != "event_time"})
            )
        return list(self._all.values())

    def write(self, seen: Observation) -> None:
        """Write an observation."""
        self._writer.write(seen.model, seen.record())
