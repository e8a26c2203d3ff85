"""Decode many Avro messages into columns at once, and prove it.

A batch of messages of one schema is one block of an Avro file, which Polars reads many times as fast as a
reader of single records. But it takes the batch for one stream of bytes: a broken record would shift all behind
it. So the columns are encoded again, and only when each message comes out byte for byte as it came is the batch
decoded; else nothing is returned, and the caller decodes one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import polars as pl

from connectors.columns import ColumnEncoder, UnsupportedColumnTypeError
from connectors.varints import varint

__all__ = ["BlockDecoder"]

_HEADER_SIZE = 5
_SYNC = b"dealeriq-columns"
_PROMOTED = {("int", "long"): pl.Int64, ("float", "double"): pl.Float64}


class BlockDecoder:
    """Decodes messages (Confluent wire format) of one schema id into the shape of the reader's schema.

    Raises UnsupportedColumnTypeError where the schemas have fields that are not numbers, texts, bytes and
    booleans (or one of these and null), or differ by more than added, dropped and widened fields: such messages
    are for a decoder that takes them one by one.
    """

    def __init__(self, writer: Mapping[str, Any], schema_id: int, reader: Mapping[str, Any]) -> None:
        self._encoder = ColumnEncoder(writer, schema_id)
        self._columns = _resolved(writer, reader)
        # Polars' reader takes no default but null, and needs none: the schema is the writer's.
        fields = [{"name": each["name"], "type": _bare(each["type"])} for each in writer["fields"]]
        schema = json.dumps({"type": "record", "name": "row", "fields": fields}).encode()
        meta = varint(1) + _bytes(b"avro.schema") + _bytes(schema) + varint(0)
        self._head = b"Obj\x01" + meta + _SYNC

    def decode(self, messages: Sequence[bytes]) -> pl.DataFrame | None:
        """Return one row a message, or None where not every message is exactly a record of the schema."""
        body = b"".join([each[_HEADER_SIZE:] for each in messages])
        block = b"".join((self._head, varint(len(messages)), varint(len(body)), body, _SYNC))
        try:
            frame = pl.read_avro(BytesIO(block))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            return None
        if frame.height != len(messages) or self._encoder.encode(frame) != messages:
            return None
        return frame.select(self._columns)


def _resolved(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> list[pl.Expr]:
    """How each of the reader's fields comes from the writer's columns."""
    written = {each["name"]: _kind(each["type"]) for each in writer["fields"]}
    found = []
    for field in reader["fields"]:
        name = field["name"]
        kind, nullable = _kind(field["type"])
        if name not in written:
            if "default" not in field or field.get("aliases"):
                raise UnsupportedColumnTypeError(f"field {name} has no default")
            found.append(pl.lit(field["default"], dtype=_TYPES[kind]).alias(name))
            continue
        came, came_nullable = written[name]
        if came_nullable and not nullable:
            raise UnsupportedColumnTypeError(f"field {name} may be null in the writer's schema only")
        if came == kind:
            found.append(pl.col(name))
        elif (came, kind) in _PROMOTED:
            found.append(pl.col(name).cast(_PROMOTED[came, kind]))
        else:
            raise UnsupportedColumnTypeError(f"field {name} is {came} and wanted as {kind}")
    return found


_TYPES: dict[str, Any] = {
    "int": pl.Int32,
    "long": pl.Int64,
    "float": pl.Float32,
    "double": pl.Float64,
    "boolean": pl.Boolean,
    "string": pl.String,
    "bytes": pl.Binary,
}


def _kind(avro: Any) -> tuple[str, bool]:
    """(primitive type, may be null)."""
    if isinstance(avro, list):
        kinds = [_bare(each) for each in avro if each != "null"]
        if len(kinds) == 1 and len(avro) == 2 and kinds[0] in _TYPES:
            return kinds[0], True
    elif (bare := _bare(avro)) in _TYPES:
        return bare, False
    raise UnsupportedColumnTypeError(f"{avro} is no plain column")


def _bare(avro: Any) -> Any:
    """The type without its logical type."""
    if isinstance(avro, list):
        return [_bare(each) for each in avro]
    return avro["type"] if isinstance(avro, Mapping) else avro


def _bytes(data: bytes) -> bytes:
    return varint(len(data)) + data
