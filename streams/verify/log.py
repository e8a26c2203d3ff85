"""A topic as the truth: every committed record read in bulk, judged, and kept as columns.

A record is an event, or rejected (it cannot be read, or breaks a bound of its schema). The reader can be asked
again: it goes on from where it stopped, so that what came meanwhile costs only itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray

from connectors.bounded import surely_allowed
from connectors.kafka import KafkaUnavailableError, consumer
from connectors.lake import Root
from connectors.registry import Registry
from connectors.topic_columns import TopicColumns
from schemas.catalogue import topic as declared
from schemas.validate import problems
from streams.verify.broker import Broker, Ends
from streams.verify.lake_source import lake_rows

__all__ = ["Index", "TopicReader"]

_BATCH = 20_000
_EXAMPLES = 1_000  # values kept of each batch, for a closer look
_SILENCE_S = 60.0
_FAR_MS = 4_102_444_800_000  # the year 2100: later than any event time that is allowed
_GROUP = "dealeriq-verify"


@dataclass(frozen=True)
class Index:
    """Every record of a topic by position: when it came (ms) and its value's CRC-32, -1 for a tombstone."""

    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    crc: NDArray[np.int64]


@dataclass
class _Read:
    events: list[pl.DataFrame] = field(default_factory=list)
    rejected: list[tuple[int, int, int, int]] = field(default_factory=list)
    index: list[Index] = field(default_factory=list)


class TopicReader:
    """Reads one topic of Avro records.

    Args:
        broker: where.
        registry: whose schemas.
        name: which topic.
        columns: the fields to keep; `event_id`, `event_time` and the key are kept always.
        keep: says which rows of a batch to keep, where a sample is enough.
        pause: called after every batch, so that a reader in the background can stand back.
    """

    def __init__(
        self,
        broker: Broker,
        registry: Registry,
        name: str,
        columns: Sequence[str],
        pause: Callable[[], None] = lambda: None,
        keep: Callable[[pl.DataFrame], NDArray[np.bool_]] | None = None,
    ) -> None:
        about = declared(name)
        assert about.schema is not None, name
        self.name, self.key = name, about.key[0]
        self._broker, self._pause, self._schema = broker, pause, about.schema
        self._wanted = keep
        always = [each for each in ("event_id", "event_time") if each in _names(about.schema)]
        self.columns = list(dict.fromkeys([*columns, self.key, *always]))
        self._reader = TopicColumns(name, self.columns, registry.schema)
        self._read = _Read()
        self._events = 0
        self._last: Ends = {}
        self._firsts: Ends = {}
        self._oldest: dict[int, int] = {}
        self._frame: tuple[int, pl.DataFrame] | None = None
        self.ends: Ends = {}
        self.examples: dict[tuple[int, int], bytes | None] = {}
        self.records = 0

    def read(self, ends: Mapping[int, int]) -> int:
        """Read on up to these next offsets; return how many records were new. Raises KafkaUnavailableError."""
        before = self.records
        firsts = self._broker.firsts(self.name)
        self._held_from(firsts)
        begin = {p: max(self.ends.get(p, 0), firsts.get(p, 0)) for p in ends}
        left = {p for p, end in ends.items() if end > begin[p]}
        if left:
            source = consumer(self._broker.kafka, _GROUP, queued_min_messages=100_000)  # it is read whole
            try:
                source.assign([TopicPartition(self.name, p, begin[p]) for p in left])
                self._drain(source, left, ends)
            finally:
                source.close()
        self.ends |= {p: max(end, self.ends.get(p, 0)) for p, end in ends.items()}
        return self.records - before

    def begin_with(self, root: Root) -> None:
        """Take what the lake has of the topic, of which only `keep` is kept, and read on from there.

        Of what is rejected nothing is known then. Raises what reading the lake raises.
        """
        firsts = self._broker.firsts(self.name)
        self._held_from(firsts)
        with lake_rows(root, self.name, _names(self._schema), firsts) as (parts, upto):
            for part in parts:
                self._take_rows(part)
                self._pause()
        self.ends |= upto

    def _take_rows(self, rows: pl.DataFrame) -> None:
        partition, offset, timestamp = (
            rows[name].fill_null(-1).to_numpy() for name in ("_partition", "_offset", "_timestamp")
        )
        self._note(partition, offset, timestamp)
        wanted = rows["_readable"].to_numpy().copy()
        if self._wanted is not None:
            wanted &= self._wanted(rows)
        doubtful = np.flatnonzero(wanted)[~surely_allowed(self.name, rows.filter(wanted))]
        if len(doubtful):
            names = _names(self._schema)
            records = rows.select(names)[doubtful].to_dicts()
            pairs = zip(doubtful.tolist(), records, strict=True)
            wanted[[row for row, record in pairs if problems(self.name, record)]] = False
        places = np.flatnonzero(wanted)
        none = np.zeros(0, np.int64)
        self._append(
            rows.select(self.columns).filter(wanted),
            Index(partition, offset, timestamp, none),
            places,
        )

    def _held_from(self, firsts: Mapping[int, int]) -> None:
        """Note up to which offset the topic had let records go before the first read."""
        if not self.ends:
            self._firsts = {p: offset for p, offset in firsts.items() if offset > 0}

    @property
    def since_ms(self) -> int:
        """The event time from which on every event is still in the topic; 0 while it holds its first record."""
        return min((self._oldest.get(p, _FAR_MS) for p in self._firsts), default=0)

    def _drain(self, source: Consumer, left: set[int], ends: Mapping[int, int]) -> None:
        heard = time.monotonic()
        while left:
            messages = [
                message
                for message in source.consume(_BATCH, 0.1)
                if message.error() is None and message.offset() < ends[message.partition()]
            ]
            if messages:
                heard = time.monotonic()
                self._take(messages)
                self._pause()
            elif time.monotonic() - heard > _SILENCE_S:
                raise KafkaUnavailableError(
                    f"{self.name} gives no record for {_SILENCE_S:.0f} s before its end"
                )
            # Transaction markers take offsets that no message has: the consumer's own position tells the end.
            for where in source.position([TopicPartition(self.name, partition) for partition in left]):
                if where.offset >= ends[where.partition]:
                    left.discard(where.partition)

    def _take(self, messages: Sequence[Any]) -> None:
        values = [message.value() for message in messages]
        count = len(values)
        index = Index(
            np.fromiter((message.partition() for message in messages), np.int32, count),
            np.fromiter((message.offset() for message in messages), np.int64, count),
            np.fromiter((message.timestamp()[1] for message in messages), np.int64, count),
            np.fromiter((-1 if value is None else crc32(value) for value in values), np.int64, count),
        )
        if self._wanted is None:
            self._read.index.append(index)
            for row in random.sample(range(count), min(count, _EXAMPLES)):
                self.examples[int(index.partition[row]), int(index.offset[row])] = values[row]
        self._note(index.partition, index.offset, index.timestamp)
        batch = self._reader.read(values)
        for row, _ in batch.refused:
            at = int(index.partition[row]), int(index.offset[row])
            self._read.rejected.append((*at, int(index.timestamp[row]), int(index.crc[row])))
        if len(batch.rows):
            self._keep(batch.table, index, batch.rows)

    def _note(self, partitions: NDArray[Any], offset: NDArray[Any], timestamp: NDArray[Any]) -> None:
        """Note how far, and how far back, what was read reaches."""
        for partition in np.unique(partitions).tolist():
            here = partitions == partition
            last = int(offset[here].max()) + 1
            first = int(timestamp[here].min())
            self._oldest[partition] = min(first, self._oldest.get(partition, _FAR_MS))
            self._last[partition] = max(last, self._last.get(partition, 0))
        self.records += len(partitions)

    def _keep(self, table: pl.DataFrame, index: Index, rows: NDArray[np.int64]) -> None:
        if self._wanted is not None:
            wanted = self._wanted(table)
            table, rows = table.filter(wanted), rows[wanted]
        self._append(table, index, rows)

    def _append(self, table: pl.DataFrame, index: Index, rows: NDArray[np.int64]) -> None:
        numbers = np.arange(self._events, self._events + len(rows))
        self._events += len(rows)
        self._read.events.append(
            table.with_columns(
                _event=numbers,
                _partition=index.partition[rows],
                _offset=index.offset[rows],
                _timestamp=index.timestamp[rows],
            )
        )

    def last(self) -> Ends:
        """Return the offset behind the last record of each partition that has any; markers at the end do not
        count.
        """
        return dict(self._last)

    def events(self) -> pl.DataFrame:
        """Return every event in the order of (partition, offset), each with its number (`_event`).

        `_first` tells an event from its repeats.
        """
        if self._frame is None or self._frame[0] != self.records:
            self._frame = self.records, self._whole()
        return self._frame[1]

    def _whole(self) -> pl.DataFrame:
        if not self._read.events:
            return pl.DataFrame()
        frame = pl.concat(self._read.events, how="vertical_relaxed").sort("_partition", "_offset")
        if "event_id" not in frame.columns:
            return frame
        return frame.with_columns(_first=pl.struct("event_id", self.key).is_first_distinct())

    def rejected(self) -> pl.DataFrame:
        """Return the position, time and CRC of every record that is no event."""
        names = ["_partition", "_offset", "_timestamp", "_crc"]
        return pl.DataFrame(self._read.rejected, schema=dict.fromkeys(names, pl.Int64), orient="row")

    def index(self) -> Index:
        """Return every record's position, time and CRC, in the order of (partition, offset)."""
        parts = self._read.index
        if not parts:
            none = np.zeros(0, np.int64)
            return Index(none.astype(np.int32), none, none, none)
        partition = np.concatenate([part.partition for part in parts])
        offset = np.concatenate([part.offset for part in parts])
        order = np.lexsort((offset, partition))
        timestamp = np.concatenate([part.timestamp for part in parts])
        crc = np.concatenate([part.crc for part in parts])
        return Index(partition[order], offset[order], timestamp[order], crc[order])


def _names(schema: Mapping[str, Any]) -> list[str]:
    return [each["name"] for each in schema["fields"]]
