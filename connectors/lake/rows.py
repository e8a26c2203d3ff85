"""Messages become rows: decode a batch of one topic into Arrow columns, nothing left out.

Columns are built with Polars: `pyarrow.array` imports pandas, which no streaming process may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any
from zlib import crc32

import polars as pl
import pyarrow as pa

from connectors.columns import UnsupportedColumnTypeError
from connectors.lake.avro import BlockDecoder
from connectors.lake.layout import DATE, arrow_schema, keeps_text_keys
from schemas.catalogue import topic
from schemas.codec import Decoder, plain
from schemas.errors import UndecodableError

__all__ = ["Rows"]

_HEADER = Struct(">bI")
_CHUNK = 512
"""How many messages are decoded again together where a whole batch did not come out: poison is rare."""

_LAST_DAY_MS = 253_402_300_799_999  # the year 9999: a time beyond it is no time


class Rows:
    """Makes rows of one topic. `fetch_schema(id)` is the registry's (`connectors.registry.Registry.schema`)."""

    def __init__(self, topic_name: str, fetch_schema: Callable[[int], Any]) -> None:
        declared = topic(topic_name)
        self.topic = topic_name
        self.schema = arrow_schema(topic_name)
        self._text_keys = keeps_text_keys(declared)
        self._reader = None if declared.schema is None else plain(declared.schema)
        self._fetch = fetch_schema
        self._decoder = None if declared.schema is None else Decoder.of_topic(topic_name, fetch_schema)
        self._blocks: dict[bytes, BlockDecoder | None] = {}
        self._types = {each.name: _polars(each.type) for each in self.schema}
        self._fields = [] if self._reader is None else [each["name"] for each in self._reader["fields"]]

    def of(self, messages: Sequence[Any]) -> pa.Table:
        """Return a table with one row a confluent-kafka message, in their order.

        A value that cannot be decoded keeps its bytes in `_raw`. Raises what `fetch_schema` raises while the
        registry is away.
        """
        values = [each.value() for each in messages]
        headers = [each.headers() for each in messages]
        columns = self._beside(messages, values, headers)
        if self._reader is None:
            columns["value"] = self._series("value", values)
            columns["headers"] = self._series("headers", [_structs(each) for each in headers])
            columns["_raw"] = self._series("_raw", [None] * len(values))
        else:
            columns |= {each.name: each for each in self._decoded(values).get_columns()}
        names = self.schema.names
        arrays = [_as(columns[name].to_arrow(), self.schema.field(name).type) for name in names]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _decoded(self, values: Sequence[bytes | None]) -> pl.DataFrame:
        """The fields of every value and `_raw`, in the order of the values."""
        by_schema: defaultdict[bytes | None, list[int]] = defaultdict(list)
        for index, value in enumerate(values):
            by_schema[None if value is None else value[: _HEADER.size]].append(index)
        frames: list[pl.DataFrame] = []
        order: list[int] = []
        for header, indices in by_schema.items():
            chosen = [values[index] for index in indices]
            block = None if header is None else self._block(header)
            frames.append(self._one_by_one(chosen) if block is None else self._by_block(block, chosen))
            order += indices
        if len(frames) == 1:
            return frames[0]
        return pl.concat(frames)[pl.Series(order, dtype=pl.UInt32).arg_sort()]

    def _block(self, header: bytes) -> BlockDecoder | None:
        if header not in self._blocks:
            found = None
            if len(header) == _HEADER.size and header[0] == 0:
                try:
                    number = _HEADER.unpack(header)[1]
                    found = BlockDecoder(plain(self._fetch(number)), number, self._reader or {})
                except (UndecodableError, UnsupportedColumnTypeError, KeyError, TypeError):
                    pass  # the decoder of single records says what is wrong with it
            self._blocks[header] = found
        return self._blocks[header]

    def _by_block(self, block: BlockDecoder, values: list[Any]) -> pl.DataFrame:
        frame = block.decode(values)
        if frame is not None:
            return frame.with_columns(pl.lit(None, dtype=pl.Binary).alias("_raw"))
        if len(values) <= _CHUNK:
            return self._one_by_one(values)
        return pl.concat(
            [self._by_block(block, values[at : at + _CHUNK]) for at in range(0, len(values), _CHUNK)]
        )

    def _one_by_one(self, values: Sequence[bytes | None]) -> pl.DataFrame:
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
        while True:
            try:
                fields = [self._series(name, [each.get(name) for each in records]) for name in self._fields]
                return pl.DataFrame([*fields, self._series("_raw", raw)])
            except _UNFIT:
                # A number that its column cannot hold makes poison of its record alone.
                for index, record in enumerate(records):
                    if not all(self._fits(name, value) for name, value in record.items()):
                        records[index], raw[index] = {}, values[index]

    def _fits(self, name: str, value: Any) -> bool:
        try:
            self._series(name, [value])
        except _UNFIT:
            return False
        return True

    def _series(self, name: str, values: list[Any]) -> pl.Series:
        if pa.types.is_map(self.schema.field(name).type):
            values = [
                None if each is None else [{"key": k, "value": v} for k, v in each.items()] for each in values
            ]
        return pl.Series(name, values, dtype=self._types[name], strict=True)

    def _keys(self, keys: list[bytes | None]) -> pl.Series:
        if not self._text_keys:
            return self._series("_key", keys)
        try:
            return pl.Series("_key", keys, dtype=pl.Binary).cast(pl.String)
        except _UNFIT:  # not all are UTF-8 bytes
            return self._series("_key", [None if each is None else _text(each) for each in keys])

    def _beside(
        self, messages: Sequence[Any], values: list[bytes | None], headers: list[Any]
    ) -> dict[str, pl.Series]:
        """The columns that every topic has."""
        times = pl.Series("_timestamp", [each.timestamp()[1] for each in messages], dtype=pl.Int64)
        # A time that is none (-1), or beyond the calendar, is null, and came on the first day.
        time = pl.when(pl.col("_timestamp").is_between(0, _LAST_DAY_MS)).then("_timestamp")
        frame = times.to_frame().select(
            time,
            pl.from_epoch(time.fill_null(0), time_unit="ms").dt.strftime("%Y-%m-%d").alias(DATE),
        )
        sources = [dict(each).get("ce_source") if each else None for each in headers]
        texts = {each: None if each is None else _text(each) for each in set(sources)}
        return {
            "_partition": self._series("_partition", [each.partition() for each in messages]),
            "_offset": self._series("_offset", [each.offset() for each in messages]),
            "_timestamp": frame["_timestamp"],
            "_key": self._keys([each.key() for each in messages]),
            "_source": self._series("_source", [texts[each] for each in sources]),
            "_crc": self._series("_crc", [None if each is None else crc32(each) for each in values]),
            "_tombstone": self._series("_tombstone", [each is None for each in values]),
            DATE: frame[DATE],
        }


_UNFIT = (pl.exceptions.PolarsError, OverflowError, TypeError, ValueError)


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode(errors="backslashreplace")


def _structs(headers: Any) -> list[dict[str, Any]]:
    return [{"key": name, "value": value} for name, value in headers or ()]


def _polars(kind: pa.DataType) -> Any:
    if pa.types.is_map(kind):
        return pl.List(pl.Struct({"key": _polars(kind.key_type), "value": _polars(kind.item_type)}))
    if pa.types.is_list(kind):
        return pl.List(_polars(kind.value_type))
    if pa.types.is_struct(kind):
        return pl.Struct({each.name: _polars(each.type) for each in kind})
    return _POLARS[str(kind)]


_POLARS: dict[str, Any] = {
    "string": pl.String,
    "int64": pl.Int64,
    "int32": pl.Int32,
    "double": pl.Float64,
    "float": pl.Float32,
    "bool": pl.Boolean,
    "binary": pl.Binary,
}


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """What Polars gives, as the type of the column."""
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        entries = array.values
        return pa.MapArray.from_arrays(
            array.offsets,
            entries.field(0),
            entries.field(1),
            mask=array.is_null() if array.null_count else None,
        )
    return array.cast(kind)
