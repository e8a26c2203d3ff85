"""What a monitor saw of a version in a window: a record of `model.monitors`, and the log of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from connectors.settings import KafkaSettings, RegistrySettings
from models.topic_log import OnceLog
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


class ObservationLog(OnceLog[Observation]):
    """Every observation of a version."""

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings) -> None:
        super().__init__(kafka, registry, TOPIC, "/models/monitors", Observation, attrgetter("model"))
