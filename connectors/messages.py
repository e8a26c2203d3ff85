"""Frames become messages: key, Avro value and headers of every row, ready to produce.

One writer serves the importer and the player, so both write the same bytes for the same record.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom
from typing import NamedTuple

import polars as pl

from connectors.columns import ColumnEncoder
from connectors.identity import id_field, identify
from schemas.catalogue import topic
from schemas.errors import ContractError

__all__ = ["Headers", "MessageWriter", "Messages"]

Headers = list[tuple[str, bytes]]


class Messages(NamedTuple):
    """Equally long columns of messages of one topic."""

    topic: str
    keys: list[bytes]
    values: Sequence[bytes | None]
    headers: list[Headers]


class MessageWriter:
    """Write the rows of frames as messages of one topic.

    `schema_id` is the registry's id of the topic's value schema; `source` becomes `ce_source`.
    """

    def __init__(self, topic_name: str, schema_id: int, source: str) -> None:
        declared = topic(topic_name)
        if declared.schema is None:
            raise ContractError(f"{topic_name} takes dead letters, not records")
        self.topic = topic_name
        self._key = declared.key[0]
        self._id = id_field(topic_name)
        self._encoder = ColumnEncoder(declared.schema, schema_id)
        self._specversion = ("ce_specversion", b"1.0")
        self._type = ("ce_type", topic_name.encode())
        self._source = ("ce_source", source.encode())

    def write(self, frame: pl.DataFrame) -> Messages:
        """Return the messages of the frame's rows, in order.

        The frame holds the record's fields; `event_time` is in ms since the epoch. A frame without the topic's
        id column gets ids from the natural key.
        """
        if self._id is not None and self._id not in frame.columns:
            frame = frame.with_columns(pl.Series(self._id, identify(self.topic, frame), dtype=pl.String))
        ids = frame[self._id].to_list() if self._id is not None else identify(self.topic, frame)
        keys = frame[self._key].cast(pl.Binary).to_list()
        times = pl.from_epoch(frame["event_time"], time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        random = urandom(24 * frame.height).hex()
        specversion, kind, source = self._specversion, self._type, self._source
        headers: list[Headers] = [
            [
                specversion,
                ("ce_id", identity.encode()),
                kind,
                source,
                ("ce_time", time),
                ("ce_subject", key),
                ("traceparent", f"00-{random[at : at + 32]}-{random[at + 32 : at + 48]}-01".encode()),
            ]
            for identity, time, key, at in zip(
                ids, times.cast(pl.Binary).to_list(), keys, range(0, 48 * frame.height, 48), strict=True
            )
        ]
        return Messages(self.topic, keys, self._encoder.encode(frame), headers)
