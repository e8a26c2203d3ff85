"""The bounds of fields, as data in the schemas: what validation, Flink's filter and the docs page all read.

A field's properties: `minimum` and `maximum` (inclusive), `minLength` and `maxLength` (characters), `pattern`
(the whole text must match). A time lies within 2000-01-01 to 2100-01-01, exclusive, unless its field says
otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from schemas.catalogue import topic

__all__ = ["TIME_MAXIMUM_MS", "TIME_MINIMUM_MS", "Bound", "bounds", "bounds_of"]

TIME_MINIMUM_MS = 946_684_800_001  # just after 2000-01-01T00:00:00Z
TIME_MAXIMUM_MS = 4_102_444_799_999  # just before 2100-01-01T00:00:00Z


@dataclass(frozen=True, slots=True)
class Bound:
    """What one field allows. `type` is Avro's name (`timestamp-millis` for times); `required` has no
    default.
    """

    field: str
    type: str
    nullable: bool
    required: bool
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    @property
    def text(self) -> str:
        """What is allowed, for people: '0 to 1000000', 'at most 200 characters'."""
        parts = []
        if self.type == "timestamp-millis":
            usual = (self.minimum, self.maximum) == (TIME_MINIMUM_MS, TIME_MAXIMUM_MS)
            parts.append("after 2000 and before 2100" if usual else f"{self.minimum} to {self.maximum}")
        elif self.minimum is not None and self.maximum is not None:
            parts.append(f"{self.minimum} to {self.maximum}")
        elif self.minimum is not None:
            parts.append(f"at least {self.minimum}")
        elif self.maximum is not None:
            parts.append(f"at most {self.maximum}")
        if self.min_length:
            parts.append(f"at least {self.min_length} character{'s' if self.min_length > 1 else ''}")
        if self.max_length is not None:
            parts.append(f"at most {self.max_length} characters")
        if self.pattern is not None:
            parts.append(f"matches {self.pattern}")
        return ", ".join(parts)


@cache
def bounds(topic_name: str) -> tuple[Bound, ...]:
    """Return the bounds of every field of a topic's value, in schema order. Raises UnknownTopicError."""
    schema = topic(topic_name).schema
    return () if schema is None else bounds_of(schema)


def bounds_of(schema: dict[str, Any]) -> tuple[Bound, ...]:
    """Return the bounds of a record schema's fields, in order."""
    return tuple(_bound(field) for field in schema["fields"])


def _bound(field: dict[str, Any]) -> Bound:
    kind, nullable = _kind(field["type"])
    minimum, maximum = field.get("minimum"), field.get("maximum")
    if kind == "timestamp-millis":
        minimum = TIME_MINIMUM_MS if minimum is None else minimum
        maximum = TIME_MAXIMUM_MS if maximum is None else maximum
    return Bound(
        field=field["name"],
        type=kind,
        nullable=nullable,
        required="default" not in field,
        minimum=minimum,
        maximum=maximum,
        min_length=field.get("minLength"),
        max_length=field.get("maxLength"),
        pattern=field.get("pattern"),
    )


def _kind(avro: Any) -> tuple[str, bool]:
    if isinstance(avro, list):
        kinds = [each for each in avro if each != "null"]
        return (_kind(kinds[0])[0] if len(kinds) == 1 else "union"), "null" in avro
    if isinstance(avro, dict):
        return str(avro.get("logicalType") or avro["type"]), False
    return str(avro), False
