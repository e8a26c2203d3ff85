"""How a topic lies in the lake: one append-only Delta table a topic, one row a record.

A table has the topic's Avro fields as columns, each under its own name, and these beside them:

| column | what |
|---|---|
| `_partition`, `_offset` | the record's position in Kafka |
| `_timestamp` | Kafka's record time, ms since the epoch; null where the producer gave none |
| `_key` | the message key: text, or bytes for topics whose key has a schema and for dead letters |
| `_source` | the `ce_source` header |
| `_crc` | CRC-32 of the value's bytes as they came; null for a tombstone |
| `_tombstone` | true where the value was null |
| `_raw` | the value's bytes where they cannot be decoded (all fields are null then), else null |
| `_date` | UTC day of `_timestamp`, `YYYY-MM-DD`; the partition column |

A dead-letter topic has `value` and `headers` in place of fields. Every column but the position is nullable.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa

from schemas.catalogue import CATALOGUE, Topic, topic
from schemas.errors import ContractError

__all__ = [
    "APP_ID",
    "DATE",
    "LAYOUT",
    "LAYOUT_PROPERTY",
    "app_id",
    "arrow_schema",
    "default_topics",
    "keeps_text_keys",
    "table_url",
]

LAYOUT = "1"
"""Version of this layout; a table carries the one it was made with."""

LAYOUT_PROPERTY = "dealeriq.layout"
APP_ID = "dealeriq:{topic}:{partition}"
"""Delta application id of a Kafka partition: its transaction version is the partition's next offset."""

DATE = "_date"

_PRIMITIVE = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "double": pa.float64(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
    "enum": pa.string(),
    "fixed": pa.binary(),
}
_HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))


def app_id(topic_name: str, partition: int) -> str:
    """Return the Delta application id under which a partition's position is kept."""
    return APP_ID.format(topic=topic_name, partition=partition)


def default_topics() -> tuple[str, ...]:
    """Return the topics that go to the lake unless a setting names others: all but derived changelogs."""
    return tuple(
        name for name in CATALOGUE if not name.startswith("tiles.") and name.removesuffix(".dlq") != "imports"
    )


def table_url(root: str, topic_name: str, *, current: bool = False) -> str:
    """Return the address of a topic's table, or of its `current` table, under the lake's root."""
    base = root.rstrip("/")
    return f"{base}/current/{topic_name}" if current else f"{base}/{topic_name}"


def keeps_text_keys(declared: Topic) -> bool:
    """True where the message key is the text of a field, and so a string in the lake."""
    return declared.key_schema is None and not declared.is_dead_letters


@cache
def arrow_schema(topic_name: str) -> pa.Schema:
    """Return the columns of a topic's table. Raises UnknownTopicError."""
    declared = topic(topic_name)
    if declared.schema is None:
        fields = [pa.field("value", pa.binary()), pa.field("headers", _HEADERS)]
    else:
        fields = [
            pa.field(each["name"], _arrow(each["type"], topic_name)) for each in declared.schema["fields"]
        ]
    return pa.schema(
        [
            *fields,
            pa.field("_partition", pa.int32()),
            pa.field("_offset", pa.int64()),
            pa.field("_timestamp", pa.int64()),
            pa.field("_key", pa.string() if keeps_text_keys(declared) else pa.binary()),
            pa.field("_source", pa.string()),
            pa.field("_crc", pa.int64()),
            pa.field("_tombstone", pa.bool_()),
            pa.field("_raw", pa.binary()),
            pa.field(DATE, pa.string()),
        ]
    )


def _arrow(avro: Any, topic_name: str) -> pa.DataType:
    """The Arrow type of an Avro type; logical types stay what they are on the wire."""
    if isinstance(avro, list):
        kinds = [each for each in avro if each != "null"]
        if len(kinds) == 1:
            return _arrow(kinds[0], topic_name)
    elif isinstance(avro, dict):
        kind = avro["type"]
        if kind == "array":
            return pa.list_(_arrow(avro["items"], topic_name))
        if kind == "map":
            return pa.map_(pa.string(), _arrow(avro["values"], topic_name))
        if kind == "record":
            return pa.struct([pa.field(f["name"], _arrow(f["type"], topic_name)) for f in avro["fields"]])
        return _arrow(kind, topic_name)
    elif avro in _PRIMITIVE:
        return _PRIMITIVE[avro]
    raise ContractError(
        f"the Avro type {avro!r} of {topic_name} has no column type in the lake",
        remedy="Use a type of one kind (with null, if it may be absent), or extend connectors/lake/layout.py.",
    )
