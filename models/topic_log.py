"""Topics of few records, read whole and kept up with: what everyone who reads them knows alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from connectors.kafka import ensure_topics
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from connectors.whole import WholeTopic
from models.written import Writer
from schemas.codec import Decoder
from schemas.errors import UndecodableError

__all__ = ["OnceLog", "TopicLog"]


class TopicLog:
    """One topic, from its first record on. Use it as a context manager.

    A record that cannot be read says nothing to anyone, and is passed over by everyone alike. Raises
    KafkaUnavailableError, RegistryUnavailableError.
    """

    def __init__(self, kafka: KafkaSettings, registry: RegistrySettings, topic: str) -> None:
        ensure_topics(kafka, [topic])
        self._kafka, self._topic, self._known = kafka, topic, Registry(registry)
        self._decoder = Decoder.of_topic(topic, self._known.schema)
        self._whole = WholeTopic(kafka, topic, f"dealeriq-{topic}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._whole.close()

    def fresh(self, upto: dict[int, int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (offset, record) of what was written since the last call; of that before `upto`, if given."""
        for message in self._whole.records(upto=upto):
            try:
                yield message.offset(), self._decoder.decode(message.value())
            except UndecodableError:
                continue

    def writer(self, source: str) -> Writer:
        """Return a writer of the topic; `source` is the envelope's."""
        schema_id = self._known.register_all([self._topic])[f"{self._topic}-value"]
        return Writer(self._kafka, self._topic, schema_id, source)


class _Event(Protocol):
    def record(self) -> Mapping[str, Any]:
        """Return it as the topic has it."""


E = TypeVar("E", bound=_Event)


class OnceLog(TopicLog, Generic[E]):
    """Every event in the order of the log, each once, however often it was written; catch up before reading.

    `of` makes one of a record's fields (without `event_id` and `event_time`), `key` is that of its message.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        registry: RegistrySettings,
        topic: str,
        source: str,
        of: Callable[..., E],
        key: Callable[[E], str],
    ) -> None:
        super().__init__(kafka, registry, topic)
        self._writer, self._of, self._key = self.writer(source), of, key
        self._all: dict[str, E] = {}

    def catch_up(self) -> list[E]:
        """Read what was written since; return all there is."""
        for _, record in self.fresh():
            identity = record.pop("event_id")
            record.pop("event_time")
            self._all.setdefault(identity, self._of(**record))
        return list(self._all.values())

    def write(self, event: E) -> None:
        """Write an event."""
        self._writer.write(self._key(event), event.record())
