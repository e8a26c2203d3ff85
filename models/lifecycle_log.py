"""`model.lifecycle` in Kafka: read it to its end, write a step and know whether it counts."""

from __future__ import annotations

import time
from typing import Any

from connectors.settings import KafkaSettings, RegistrySettings
from models.lifecycle import TOPIC, Decision, Lifecycle, PromotionLostError, decision, step_id
from models.topic_log import TopicLog

__all__ = ["LifecycleLog"]

_SOURCE = "/models"


class LifecycleLog(TopicLog):
    """The registry of models, kept up with the log."""

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings) -> None:
        super().__init__(kafka, registry, TOPIC)
        self._writer = self.writer(_SOURCE)
        self.registry = Lifecycle()

    def catch_up(self, upto: dict[int, int] | None = None) -> list[Decision]:
        """Read what was written since; return the steps. Raises KafkaUnavailableError,
        RegistryUnavailableError.
        """
        return [self.registry.apply(record, offset) for offset, record in self.fresh(upto)]

    def write(
        self, model: str, version: str, stage: str, text: str, *, cause: str, reason: str, **more: Any
    ) -> Decision:
        """Write a step as seen now, and return what it did.

        A step that was taken before, for the same cause, is no error: whoever goes on after a crash repeats it.
        `after` (of `more`) is the position of a state that was decided upon earlier, where that is not now's.

        Raises:
            LifecycleError: the version cannot take it; nothing was written.
            PromotionLostError: another decision came between; what was written counts for nothing.
            KafkaUnavailableError: it could not be written.
        """
        self.catch_up()
        identity = step_id(model, version, stage, cause)
        for done in self.registry.history:
            if done.event_id == identity and not done.void:
                return done
        record = decision(
            self.registry.state(model), version, stage, text,
            cause=cause, reason=reason, event_time=time.time_ns() // 1_000_000, **more,
        )  # fmt: skip
        partition, offset = self._writer.write(model, record)
        self.catch_up({partition: offset + 1})
        (found,) = [each for each in self.registry.history if each.at == offset and each.model == model]
        if found.void:
            raise PromotionLostError(f"{model} {version} did not become {stage}: {found.void}")
        return found
