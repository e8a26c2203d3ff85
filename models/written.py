"""Writing single records to topics of models, each confirmed before the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException

from connectors.errors import translated
from connectors.kafka import KafkaUnavailableError, producer
from connectors.settings import KafkaSettings
from schemas.codec import Encoder
from schemas.envelope import headers

__all__ = ["Writer"]


class Writer:
    """Writes records of one topic, keyed by model.

    `schema_id` is the registry's, `source` the envelope's.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, schema_id: int, source: str) -> None:
        self._topic, self._source = topic, source
        self._encoder = Encoder(topic, schema_id)
        self._producer = producer(kafka, linger_ms=0)

    def write(self, model: str, record: Mapping[str, Any]) -> tuple[int, int]:
        """Write a record; return its partition and offset. Raises KafkaUnavailableError, KafkaRefusedError."""
        placed: list[Any] = []
        self._producer.produce(
            self._topic,
            self._encoder.encode(dict(record)),
            key=model.encode(),
            headers=headers(record["event_id"], self._topic, self._source, record["event_time"], model),
            on_delivery=lambda error, message: placed.append((error, message)),
        )
        self._producer.flush(60.0)
        if not placed:
            raise KafkaUnavailableError(f"no broker confirmed a record of {self._topic} ({model}) in 60 s")
        error, message = placed[0]
        if error is not None:
            raise translated(KafkaException(error)) or KafkaUnavailableError(str(error))
        return message.partition(), message.offset()
