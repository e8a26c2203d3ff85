"""Messages become rows: decode a batch of one topic into Arrow columns, nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from connectors.lake.layout import DATE, arrow_schema, keeps_text_keys
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.errors import UndecodableError

__all__ = ["Rows"]


class Rows:
    """Makes rows of one topic. `fetch_schema(id)` is the registry's (`connectors.registry.Registry.schema`)."""

    def __init__(self, topic_name: str, fetch_schema: Callable[[int], Any]) -> None:
        declared = topic(topic_name)
        self.topic = topic_name
        self.schema = arrow_schema(topic_name)
        self._text_keys = keeps_text_keys(declared)
        self._fields = [] if declared.schema is None else [each["name"] for each in declared.schema["fields"]]
        self._decoder = None if declared.schema is None else Decoder.of_topic(topic_name, fetch_schema)

    def of(self, messages: Sequence[Any]) -> pa.Table:
        """Return a table with one row a confluent-kafka message, in their order.

        A value that cannot be decoded keeps its bytes in `_raw`. Raises what `fetch_schema` raises while the
        registry is away.
        """
        values = [each.value() for each in messages]
        if self._decoder is None:
            columns = self._dead_letters(messages, values)
            raw: Any = pa.nulls(len(values), pa.binary())
        else:
            columns, raw = self._decoded(values)
        columns |= self._beside(messages, values)
        columns["_raw"] = raw
        return pa.table([columns[name] for name in self.schema.names], schema=self.schema)

    def _decoded(self, values: Sequence[bytes | None]) -> tuple[dict[str, Any], Any]:
        decode = self._decoder.decode  # type: ignore[union-attr]
        records: list[dict[str, Any]] = []
        raw: list[bytes | None] = []
        for value in values:
            kept = None
            record: dict[str, Any] = {}
            if value is not None:
                try:
                    record = decode(value)
                except UndecodableError:
                    kept = value
            records.append(record)
            raw.append(kept)
        return self._columns(records, raw, values)

    def _columns(
        self, records: list[dict[str, Any]], raw: list[bytes | None], values: Sequence[bytes | None]
    ) -> tuple[dict[str, Any], Any]:
        columns = {}
        for name in self._fields:
            kind = self.schema.field(name).type
            try:
                columns[name] = _array([each.get(name) for each in records], kind)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                # A number that its type cannot hold: those records are poison, the others are not.
                for index, record in enumerate(records):
                    if not _fits(record.get(name), kind):
                        records[index], raw[index] = {}, values[index]
                return self._columns(records, raw, values)
        return columns, pa.array(raw, pa.binary())

    def _dead_letters(self, messages: Sequence[Any], values: Sequence[bytes | None]) -> dict[str, Any]:
        headers = [[{"key": name, "value": value} for name, value in each.headers() or ()] for each in messages]
        return {
            "value": pa.array(values, pa.binary()),
            "headers": pa.array(headers, self.schema.field("headers").type),
        }

    def _beside(self, messages: Sequence[Any], values: Sequence[bytes | None]) -> dict[str, Any]:
        """The columns that every topic has."""
        keys = [each.key() for each in messages]
        if self._text_keys:
            keys = [None if key is None else _bytes(key).decode(errors="backslashreplace") for key in keys]
        times = np.array([_time(each) for each in messages], dtype=np.int64)
        known = times >= 0
        days = np.where(known, times, 0).astype("datetime64[ms]").astype("datetime64[D]")
        unique, index = np.unique(days, return_inverse=True)
        dates = pa.array([str(day) for day in unique], pa.string()).take(pa.array(index))
        return {
            "_partition": pa.array([each.partition() for each in messages], pa.int32()),
            "_offset": pa.array([each.offset() for each in messages], pa.int64()),
            "_timestamp": pa.array(times, pa.int64(), mask=~known),
            "_key": pa.array(keys, self.schema.field("_key").type),
            "_source": pa.array([_source(each.headers()) for each in messages], pa.string()),
            "_crc": pa.array([None if value is None else crc32(value) for value in values], pa.int64()),
            "_tombstone": pa.array([value is None for value in values], pa.bool_()),
            DATE: dates,
        }


def _array(values: list[Any], kind: pa.DataType) -> Any:
    if pa.types.is_map(kind):
        return pa.array([None if each is None else list(each.items()) for each in values], kind)
    return pa.array(values, kind)


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        _array([value], kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False
    return True


_LAST_DAY_MS = 253_402_300_799_999  # the year 9999: a time beyond it is no time


def _time(message: Any) -> int:
    _, time_ms = message.timestamp()
    return time_ms if 0 <= time_ms <= _LAST_DAY_MS else -1


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _source(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    found = None
    for name, value in headers or ():
        if name == "ce_source":
            found = value
    return None if found is None else _bytes(found).decode(errors="backslashreplace")
