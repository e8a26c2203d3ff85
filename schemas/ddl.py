"""The columns of a topic's value as Flink SQL types, for the table definitions that `streams/flink` builds."""

from __future__ import annotations

from typing import Any

from schemas.catalogue import Topic, topic
from schemas.errors import ContractError

__all__ = ["columns", "flink_type", "key_columns"]

_TYPES = {
    "string": "STRING",
    "long": "BIGINT",
    "int": "INT",
    "double": "DOUBLE",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "bytes": "BYTES",
    # Flink's Avro format reads timestamp-millis as TIMESTAMP(3) unless told otherwise; the time zone is UTC.
    "timestamp-millis": "TIMESTAMP(3)",
    "timestamp-micros": "TIMESTAMP(6)",
}


def columns(name: str | Topic) -> list[tuple[str, str]]:
    """Return (column, Flink type) of a topic's value, in schema order. Raises ContractError for a
    dead-letter topic.
    """
    declared = topic(name) if isinstance(name, str) else name
    if declared.schema is None:
        raise ContractError(
            f"{declared.name} has no value schema", remedy="Read it as raw bytes: `value BYTES`."
        )
    return _columns(declared.schema)


def key_columns(name: str | Topic) -> list[tuple[str, str]]:
    """Return (column, Flink type) of a topic's key: one STRING unless the topic has a key schema."""
    declared = topic(name) if isinstance(name, str) else name
    if declared.key_schema is not None:
        return _columns(declared.key_schema)
    return [(each, "STRING NOT NULL") for each in declared.key]


def flink_type(avro: Any) -> str:
    """Return the Flink type of an Avro type, `NOT NULL` unless null is allowed."""
    if isinstance(avro, list):
        kinds = [each for each in avro if each != "null"]
        if len(kinds) != 1:
            raise ContractError(
                f"a union of {avro} has no one Flink type", remedy="Use null and one other type."
            )
        return (
            flink_type(kinds[0]).removesuffix(" NOT NULL") if len(kinds) < len(avro) else flink_type(kinds[0])
        )
    if isinstance(avro, dict):
        kind = avro.get("logicalType") or avro["type"]
        if kind == "array":
            return f"ARRAY<{flink_type(avro['items'])}> NOT NULL"
        if kind == "map":
            return f"MAP<STRING NOT NULL, {flink_type(avro['values'])}> NOT NULL"
        if kind == "record":
            inner = ", ".join(f"`{name}` {kind}" for name, kind in _columns(avro))
            return f"ROW<{inner}> NOT NULL"
        avro = kind
    try:
        return f"{_TYPES[avro]} NOT NULL"
    except KeyError:
        raise ContractError(
            f"Avro type {avro} has no Flink type here", remedy="Add it to schemas/ddl.py."
        ) from None


def _columns(schema: dict[str, Any]) -> list[tuple[str, str]]:
    return [(field["name"], flink_type(field["type"])) for field in schema["fields"]]
