"""Avro in the Confluent wire format: byte 0, the schema's id (32 bits, big-endian), the record.

Times are int, ms since the epoch, on both sides: the logical type is for other readers. No dates are built or
read, which keeps both directions fast and free of time zones.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from struct import Struct
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas.catalogue import topic
from schemas.errors import EncodeError, UndecodableError

__all__ = ["Decoder", "Encoder", "Record", "UndecodableError", "frame", "plain"]

Record = dict[str, Any]
Schema = dict[str, Any]

_HEADER = Struct(">bI")
_HEADER_SIZE = 5
_TIME = "event_time"
_TIME_SIZE = 6  # bytes of a time from 1970-07 to 2039-09
_MORE_FOLLOWS = 0x00_80_80_80_80_80  # of those bytes, the bits that say that another follows
_STANDARD = frozenset(
    ("name", "namespace", "type", "fields", "default", "items", "values", "symbols", "size", "aliases")
)


def frame(schema_id: int) -> bytes:
    """Return what stands in front of a record."""
    return _HEADER.pack(0, schema_id)


def plain(schema: Any) -> Any:
    """Return the schema without docs, bounds and logical types: what decides the bytes."""
    if isinstance(schema, dict):
        return {
            key: (value if key in ("default", "aliases") else plain(value))
            for key, value in schema.items()
            if key in _STANDARD
        }
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    return schema


class Encoder:
    """Writes records of one topic.

    `schema_id` is the registry's id for the topic's schema (`connectors.registry.Registry.register_all`).
    Encoding checks types, not bounds: those are `schemas.validate.problems`.
    """

    def __init__(self, topic_name: str, schema_id: int, *, key: bool = False) -> None:
        declared = topic(topic_name)
        schema = declared.key_schema if key else declared.schema
        if schema is None:
            raise EncodeError(
                f"{topic_name} has no {'key' if key else 'value'} schema",
                remedy="Produce the bytes as they are."
                if not key
                else "The key is the key field's text in UTF-8.",
            )
        self.topic_name = topic_name
        self.schema_id = schema_id
        self._schema = parse_schema(plain(schema))
        self._header = frame(schema_id)
        self._numbers = _number_fields(schema)
        self._ints = tuple(field["name"] for field in schema["fields"] if field["type"] == "int")

    def encode(self, record: Record) -> bytes:
        """Return the message's bytes. Raises EncodeError, naming the fields that do not fit; nothing is
        coerced.
        """
        buffer = BytesIO()
        buffer.write(self._header)
        try:
            for name, allowed in self._numbers:  # fastavro would cut 3.7 to 3 and read "1" as 1 without a word
                if record.get(name, 0).__class__ not in allowed:
                    raise TypeError(f"{name} is {record[name]!r}, and must be a number")
            for name in self._ints:  # and writes an int that Java cannot read
                if not -2_147_483_648 <= record.get(name, 0) <= 2_147_483_647:
                    raise TypeError(f"{name} {record[name]} does not fit 32 bits")
            schemaless_writer(buffer, self._schema, record)
        except Exception as error:
            raise self._explain(record, error) from error
        return buffer.getvalue()

    def _explain(self, record: Record, error: Exception) -> EncodeError:
        from schemas.validate import problems

        found = problems(self.topic_name, record) if isinstance(record, dict) else []
        reason = "; ".join(found) or str(error) or type(error).__name__
        return EncodeError(f"a record does not fit {self.topic_name}: {reason}")


class Decoder:
    """Reads records of one topic, written with any version of its schema.

    `fetch_schema(id)` returns the writer's schema; it raises UndecodableError for an id that the registry does
    not know (poison), and any other error (a registry that is down) passes through: the caller retries.
    Schemas are kept, so it is called once an id. `reader_schema` is the shape wanted: absent fields get their
    defaults, unknown ones go.
    """

    def __init__(self, fetch_schema: Callable[[int], Schema], reader_schema: Schema) -> None:
        self._fetch = fetch_schema
        self._plain_reader = plain(reader_schema)
        self._reader = parse_schema(self._plain_reader)
        self._schemas: dict[bytes, tuple[Any, Any, bool]] = {}

    @classmethod
    def of_topic(cls, topic_name: str, fetch_schema: Callable[[int], Schema], *, key: bool = False) -> Decoder:
        """Return the decoder of a catalogued topic's value (or key)."""
        declared = topic(topic_name)
        schema = declared.key_schema if key else declared.schema
        if schema is None:
            raise UndecodableError(
                f"{topic_name} has no {'key' if key else 'value'} schema", remedy="Read its bytes as they are."
            )
        return cls(fetch_schema, schema)

    def is_current(self, data: bytes) -> bool:
        """Whether `data` was written with exactly the reader's schema. Raises UndecodableError."""
        schemas = self._schemas.get(data[:_HEADER_SIZE]) or self._schemas_of(data)
        return schemas[1] is None

    def apart(self, data: bytes) -> tuple[bytes, int] | None:
        """Return the bytes of a record but for its event time, and that, ms; None where it has to be read.

        Avro is read from front to back. So where one record was read, and its time is what this returned,
        another that says the same has the same in every field but the time, and its time is what this returns.
        Of a record that was not read, and says what none said before, neither is known.

        Raises UndecodableError for bytes that are of no schema, and what `fetch_schema` raises.
        """
        schemas = self._schemas.get(data[:_HEADER_SIZE]) or self._schemas_of(data)
        if not schemas[2] or len(data) < _HEADER_SIZE + _TIME_SIZE:
            return None
        seven = int.from_bytes(data[-_TIME_SIZE:], "little")  # bits a byte, the lowest first
        if seven & 0x80_80_80_80_80_80 != _MORE_FOLLOWS:
            return None
        zigzag = (
            seven & 0x7F
            | seven >> 1 & 0x7F << 7
            | seven >> 2 & 0x7F << 14
            | seven >> 3 & 0x7F << 21
            | seven >> 4 & 0x7F << 28
            | seven >> 5 & 0x7F << 35
        )
        if zigzag & 1 or not zigzag:  # before 1970, or at its beginning, which other bytes could be taken for
            return None
        return data[:-_TIME_SIZE], zigzag >> 1

    def decode(self, data: bytes | None) -> Record:
        """Return the record. Raises UndecodableError, the reason in one sentence; a tombstone (None) is one
        too.
        """
        if data is None:
            raise UndecodableError("the value is null (a tombstone) where a record is wanted")
        schemas = self._schemas.get(data[:_HEADER_SIZE])
        if schemas is None:
            schemas = self._schemas_of(data)
        buffer = BytesIO(data)
        buffer.seek(_HEADER_SIZE)
        try:
            record: Record = schemaless_reader(buffer, schemas[0], schemas[1])
        except Exception as error:
            schema_id = _HEADER.unpack_from(data)[1]
            reason = str(error) or type(error).__name__
            raise UndecodableError(
                f"{len(data)} bytes are not a record of schema id {schema_id}: {reason}"
            ) from error
        if (end := buffer.tell()) != len(data):
            raise UndecodableError(f"{len(data) - end} bytes are left over after a record of {end} bytes")
        return record

    def _schemas_of(self, data: bytes) -> tuple[Any, Any, bool]:
        if len(data) < _HEADER_SIZE:
            raise UndecodableError(
                f"{len(data)} bytes are too few: the wire format begins with 5 (0, schema id)"
            )
        magic, schema_id = _HEADER.unpack_from(data)
        if magic != 0:
            raise UndecodableError(f"the first byte is {data[0]:#04x}, not 0x00: not the Confluent wire format")
        writer = plain(self._fetch(schema_id))
        if not isinstance(writer, dict) or writer.get("type") != "record":
            raise UndecodableError(f"schema id {schema_id} is not a record")
        try:
            parsed = parse_schema(writer)
        except Exception as error:
            raise UndecodableError(f"schema id {schema_id} is not a readable Avro schema: {error}") from error
        # Resolution costs a third of the speed, so it is left out when the schemas are the same.
        reader = None if writer == self._plain_reader else self._reader
        last = writer["fields"][-1] if writer["fields"] else {}
        timed = last.get("name") == _TIME and last["type"] in ("long", {"type": "long"})
        schemas = (parsed, reader, timed)
        self._schemas[data[:_HEADER_SIZE]] = schemas
        return schemas


def _number_fields(schema: Schema) -> tuple[tuple[str, tuple[type, ...]], ...]:
    """The fields that hold a number and never null, with the classes that are written without loss."""
    allowed = {"int": (int,), "long": (int,), "float": (float, int), "double": (float, int)}
    kinds = (
        (f["name"], f["type"]["type"] if isinstance(f["type"], dict) else f["type"]) for f in schema["fields"]
    )
    return tuple((name, allowed[kind]) for name, kind in kinds if isinstance(kind, str) and kind in allowed)
