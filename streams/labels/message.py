"""A feedback message that waits: all of it, so that it can still become a label or a dead letter."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

__all__ = ["HeldMessage"]


class HeldMessage:
    """A Kafka message with the methods of confluent-kafka's own, kept as JSON."""

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
    ) -> None:
        self._place = topic, partition, offset
        self._key, self._value, self._headers = key, value, headers

    @classmethod
    def of(cls, message: Any) -> HeldMessage:
        """Take what is kept of a message."""
        place = message.topic(), message.partition(), message.offset()
        return cls(*place, message.key(), message.value(), list(message.headers() or ()))

    @classmethod
    def load(cls, packed: bytes) -> HeldMessage:
        """Read what `dump` wrote."""
        topic, partition, offset, key, value, headers = json.loads(packed)
        return cls(
            topic,
            partition,
            offset,
            _bytes(key),
            _bytes(value),
            [(name, _bytes(each)) for name, each in headers],
        )

    def dump(self) -> bytes:
        """Return the message as JSON, bytes in base 64."""
        headers = [(name, _text(value)) for name, value in self._headers]
        packed = [*self._place, _text(self._key), _text(self._value), headers]
        return json.dumps(packed, separators=(",", ":")).encode()

    def topic(self) -> str:
        """The topic it came from."""
        return self._place[0]

    def partition(self) -> int:
        """The partition it came from."""
        return self._place[1]

    def offset(self) -> int:
        """Its offset there."""
        return self._place[2]

    def key(self) -> bytes | None:
        """Its key."""
        return self._key

    def value(self) -> bytes | None:
        """Its value."""
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]]:
        """Its headers."""
        return self._headers


def _text(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else b64decode(value)
