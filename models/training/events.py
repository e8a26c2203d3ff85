"""What had happened by the time of training: the lake's events that count, and what came after a moment.

Rows and labels of training sets come from here; inputs come from `features.history` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.duck import connect_duckdb
from connectors.lake import Lake, LakeTableMissingError, Root, lake_of, relation, translated, version
from connectors.lake import columns as columns_of
from features.history import TIME_COLUMN
from features.history.accepted import accepted_sql, columns_checked, quoted
from features.history.reading import read_once

__all__ = ["Stream", "codes"]

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]
_STATES = ("_partition", "_offset", "_tombstone", "_raw")
_CLOCKS_MS = 3_600_000  # by which good clocks may differ


class Stream:
    """The lake's accepted events, each id once, as if the stream had ended at `until_ms` (None: as it is).

    `versions` hold each topic's table at a version; a topic that is not named is read at its newest. Use it as
    a context manager. Raises LakeError and its like.
    """

    def __init__(
        self,
        lake: Root,
        until_ms: int | None = None,
        *,
        versions: dict[str, int | None] | None = None,
        memory_mb: int = 768,
    ) -> None:
        self._lake: Lake = lake_of(lake)
        self.until_ms, self.versions = until_ms, dict(versions or {})
        self._connection = connect_duckdb(memory_limit=f"{memory_mb}MB", preserve_insertion_order=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def events(self, topic_name: str, columns: Sequence[str], where: str = "true") -> pa.Table:
        """Return the events with `columns` and `event_time`, in the order of event time and position."""
        return self.query(
            topic_name,
            columns,
            f"SELECT {', '.join(map(quoted, dict.fromkeys([*columns, 'event_time'])))} FROM once WHERE {where} "
            "ORDER BY event_time, _partition, _offset",
        )

    def states(self, topic_name: str, columns: Sequence[str]) -> pa.Table:
        """Return the records of a topic whose records have no ids (`dealers`), with `columns` and
        `event_time`, in the order of event time and position. A record that was deleted later is among them.
        """
        names = list(dict.fromkeys([*columns, "event_time"]))
        number = self._version(topic_name)
        if number is None:
            return pa.table({name: pa.nulls(0) for name in names})
        there = frozenset(columns_of(self._lake, topic_name, number).names)
        select = [*names, *columns_checked(topic_name, there), *_STATES]
        earlier = "" if self.until_ms is None else f" AND event_time <= {int(self.until_ms)}"
        with translated(f"{self._lake.url}/{topic_name}"):
            source = relation(
                self._connection, self._lake, topic_name, version=number, select=list(dict.fromkeys(select))
            )
            return source.query(
                "states",
                f"SELECT {', '.join(map(quoted, names))} FROM states WHERE {accepted_sql(topic_name, there)}"
                f"{earlier} ORDER BY event_time, _partition, _offset",
            ).to_arrow_table()

    def summed(
        self, topic_name: str, keys: Sequence[str], values: Sequence[str], step_ms: int = 86_400_000
    ) -> pa.Table:
        """Return, for each entity and step of event time, the events' count (`n`) and the sums of `values`."""
        named, step = ", ".join(map(quoted, keys)), f"event_time // {step_ms} * {step_ms}"
        sums = "".join(f", sum({quoted(each)}) AS {quoted(each)}" for each in values)
        return self.query(
            topic_name,
            [*keys, *values],
            f"SELECT {named}, {step} AS event_time, count(*) AS n{sums} FROM once GROUP BY ALL "
            f"ORDER BY {named}, event_time",
        )

    def latest_ms(self, topic_name: str) -> int | None:
        """Return the latest event time of a topic, or None where it has no event.

        An event that is dated after its own arrival was dated by a clock that is wrong: it does not say that
        time has gone on, or outcomes would count as known that nobody has seen.
        """
        (found,) = self.query(
            topic_name,
            [],
            "SELECT max(event_time) FILTER (WHERE event_time <= _timestamp + "
            f"{_CLOCKS_MS}) AS latest FROM once",
        )["latest"].to_pylist()
        return found  # type: ignore[no-any-return]

    def after(
        self, rows: pa.Table, topic_name: str, keys: Sequence[str], horizon_ms: int, value: str | None = None
    ) -> Floats:
        """Return, for each row, the sum of `value` (None: the count) of its entity's events in (t, t +
        horizon].

        An entity that has no event there has 0.
        """
        events = self.events(topic_name, [*keys, *([value] if value else [])])
        number, asked = codes(events, rows, keys)
        order = np.lexsort((events["event_time"].to_numpy(), number))
        number, time = number[order], events["event_time"].to_numpy()[order]
        worth = events[value].to_numpy()[order].astype(np.float64) if value else np.ones(len(order))
        total = np.concatenate([[0.0], np.cumsum(worth)])
        at = rows[TIME_COLUMN].to_numpy()
        first = _search(number, time, asked, at)
        beyond = _search(number, time, asked, at + horizon_ms)
        found: Floats = total[beyond] - total[first]
        return found

    def has(self, topic_name: str, column: str) -> bool:
        """Return whether a topic's table has a column; one from before its schema had it has not."""
        number = self._version(topic_name)
        return number is not None and column in columns_of(self._lake, topic_name, number).names

    def _version(self, topic_name: str) -> int | None:
        if topic_name not in self.versions:
            try:
                self.versions[topic_name] = version(self._lake, topic_name)
            except LakeTableMissingError:
                self.versions[topic_name] = None
        return self.versions[topic_name]

    def query(self, topic_name: str, columns: Sequence[str], query: str, *, where: str = "true") -> pa.Table:
        """Return what a DuckDB query over `once` gives: the topic's events, with `columns`, id, key and
        position; only those for which `where` holds are read.
        """
        number = self._version(topic_name)
        with translated(f"{self._lake.url}/{topic_name}"):
            read_once(
                self._connection, self._lake, topic_name, number, columns,
                until_ms=self.until_ms, where=where,
            )  # fmt: skip
            found = self._connection.sql(query).to_arrow_table()
            self._connection.execute("DROP VIEW once; DROP TABLE read")
        return found


def codes(events: pa.Table, rows: pa.Table, keys: Sequence[str]) -> tuple[Longs, Longs]:
    """Return the number of each event's and each row's entity, the same number for the same keys."""
    both = np.zeros(len(events) + len(rows), np.int64)
    for key in keys:
        column: Any = pa.concat_arrays([_text(events[key]), _text(rows[key])]).dictionary_encode()
        both = both * len(column.dictionary) + column.indices.to_numpy()
    return both[: len(events)], both[len(events) :]


def _text(column: Any) -> pa.Array:
    return pa.concat_arrays(column.cast(pa.string()).chunks) if column.num_chunks else pa.array([], pa.string())


def _search(number: Longs, time: Longs, asked: Longs, at: Longs) -> Longs:
    """For each asked (entity, time), the first place in the sorted events behind everything at or before it."""
    low, span = (int(time.min()), int(np.ptp(time)) + 2) if len(time) else (0, 2)
    known, wanted = np.unique(number), np.clip(at - low + 1, 0, span - 1)
    dense = np.searchsorted(known, number) * span + (time - low + 1)
    there = np.searchsorted(known, asked)
    found = np.searchsorted(dense, there * span + wanted, "right")
    missing = (
        (there == len(known)) | (known[np.minimum(there, len(known) - 1)] != asked) if len(known) else True
    )
    return np.where(missing, 0, found).astype(np.int64)
