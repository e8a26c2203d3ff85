"""The lake's events in DuckDB: read once a topic, then given to a view sorted, some entities at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.duck import connect_duckdb
from connectors.lake import (
    Lake,
    LakeTableMissingError,
    positions,
    translated,
    version,
)
from features.history.accepted import quoted
from features.history.events import Events
from features.history.reading import read_once
from features.plan import ViewPlan
from features.sketch import coupon

__all__ = ["LakeEvents"]

_CHUNK = 1 << 17  # events folded together; an entity that has more is a chunk by itself
_BATCH = 1 << 15


class LakeEvents:
    """Events of the lake at one version of each table, held in DuckDB within `memory_mb`, the rest on disk.

    Args:
        lake: the lake.
        views: what events are read for; they settle which columns are needed.
        precision: of the sketches of distinct values.
        arrival: events are known when they came (`_timestamp`) and not when they happened.
        scratch: a folder for what does not fit in memory; it may be removed afterwards.
        memory_mb: DuckDB's limit.
        until_ms: what happened later is not read at all.
    """

    def __init__(
        self,
        lake: Lake,
        views: Sequence[ViewPlan],
        precision: int,
        *,
        arrival: bool,
        scratch: Path,
        memory_mb: int,
        until_ms: int | None = None,
    ) -> None:
        self._lake, self._views, self._precision, self._arrival = lake, views, precision, arrival
        self._until_ms = until_ms
        self._connection = connect_duckdb(
            memory_limit=f"{memory_mb}MB", temp_directory=str(scratch), preserve_insertion_order=False
        )
        self._loaded: set[str] = set()
        self.versions = {
            name: self._version(name) for name in dict.fromkeys(view.source_topic for view in views)
        }

    def close(self) -> None:
        """Let go of everything that was read."""
        self._connection.close()

    def _version(self, topic_name: str) -> int | None:
        """The version to be read; None where the topic has no table yet, and so no events."""
        try:
            return version(self._lake, topic_name)
        except LakeTableMissingError:
            return None

    def positions(self) -> dict[str, dict[int, int]]:
        """Return topic -> partition -> next offset up to which events were read."""
        return {
            name: {} if number is None else positions(self._lake, name, number)
            for name, number in self.versions.items()
        }

    def latest(self, topic_name: str) -> int | None:
        """Return the latest event time of a topic's events, ms, or None where there are none."""
        self.load(topic_name)
        query = f"SELECT max(event_time) FROM {_table(topic_name)}"
        ((found,),) = self._connection.execute(query).fetchall()
        return None if found is None else int(found)

    def load(self, topic_name: str) -> None:
        """Read a topic's events, once: those that count, with the columns that the views need.

        Raises LakeError and its like.
        """
        if topic_name in self._loaded:
            return
        with translated(f"{self._lake.url}/{topic_name}"):
            self._load(topic_name)
        self._loaded.add(topic_name)

    def _load(self, topic_name: str) -> None:
        run, made = self._connection.execute, _table(topic_name)
        views = [view for view in self._views if view.source_topic == topic_name]
        hashed = list(dict.fromkeys(name for view in views for name in _distinct(view)))
        kept = [*(k for v in views for k in v.entity), *(n for v in views for n in _numbers(v)), *hashed]
        number = self.versions[topic_name]
        read_once(self._connection, self._lake, topic_name, number, kept, until_ms=self._until_ms)
        for name in hashed:
            self._hash_values(name)
        joins = " ".join(
            f"LEFT JOIN {quoted(f'coupons {n}')} AS c{i} ON once.{quoted(n)} = c{i}.value"
            for i, n in enumerate(hashed)
        )
        coupons = "".join(f", coalesce(c{i}.coupon, -1) AS {quoted(f'{n} #')}" for i, n in enumerate(hashed))
        dropped = ", ".join(["_hash", "event_id", *(quoted(n) for n in hashed if n not in _entities(views))])
        run(f"CREATE TEMP TABLE {made} AS SELECT once.* EXCLUDE ({dropped}){coupons} FROM once {joins}")
        run("DROP VIEW once")
        run("DROP TABLE read")
        for name in hashed:
            run(f"DROP TABLE {quoted(f'coupons {name}')}")

    def _hash_values(self, name: str) -> None:
        """Give each different value its coupon: one hash a value and not one an event."""
        table = quoted(f"coupons {name}")
        self._connection.execute(f"CREATE TEMP TABLE {table} (value VARCHAR, coupon BIGINT)")
        reader = self._connection.sql(
            f"SELECT DISTINCT {quoted(name)} AS value FROM read WHERE {quoted(name)} IS NOT NULL"
        ).to_arrow_table()
        values = reader["value"].to_pylist()
        found = pa.array([coupon(each, self._precision) for each in values], pa.int64())
        self._connection.register("made", pa.table({"value": reader["value"], "coupon": found}))
        self._connection.execute(f"INSERT INTO {table} FROM made")
        self._connection.unregister("made")

    def chunks(self, view: ViewPlan, entities: pa.Table) -> Iterator[tuple[int, Events]]:
        """Yield the events of entities (the view's keys and `_entity`, their number), some entities together.

        Each comes with the number of its first entity, from which the events' own numbers count.
        """
        self.load(view.source_topic)
        numbers, hashed = _numbers(view), _distinct(view)
        known = "greatest(event_time, coalesce(_timestamp, event_time))" if self._arrival else "event_time"
        chosen = [
            "_entity", "event_time", f"{known} AS known_at",
            *(f"CAST({quoted(n)} AS DOUBLE) AS {quoted(f'{n} .')}" for n in numbers),
            *(quoted(f"{n} #") for n in hashed),
        ]  # fmt: skip
        keys = ", ".join(map(quoted, view.entity))
        self._connection.register("asked", entities)
        reader = self._connection.sql(
            f"SELECT {', '.join(chosen)} FROM {_table(view.source_topic)} JOIN asked USING ({keys}) "
            "ORDER BY _entity, event_time, _partition, _offset"
        ).to_arrow_reader(_BATCH)
        held: list[pa.RecordBatch] = []
        size = 0
        for batch in reader:
            held.append(batch)
            size += len(batch)
            if size >= _CHUNK and held[0]["_entity"][0] != batch["_entity"][-1]:
                table = pa.Table.from_batches(held)
                entity = table["_entity"].to_numpy()
                cut = int(np.searchsorted(entity, entity[-1]))
                yield _events(table[:cut], numbers, hashed)
                held, size = table[cut:].combine_chunks().to_batches(), len(table) - cut
        if size:
            yield _events(pa.Table.from_batches(held), numbers, hashed)
        self._connection.unregister("asked")


def _events(table: pa.Table, numbers: Sequence[str], hashed: Sequence[str]) -> tuple[int, Events]:
    def column(name: str) -> Any:
        return table[name].combine_chunks().to_numpy()

    entity = column("_entity")
    first = int(entity[0])
    read: Mapping[str, Any] = {name: column(f"{name} .") for name in numbers}
    coupons = {name: column(f"{name} #") for name in hashed}
    return first, Events(entity - first, column("event_time"), column("known_at"), read, coupons)


def _numbers(view: ViewPlan) -> list[str]:
    """The columns whose values are folded."""
    none = ("count", "approx_count_distinct")
    return list(dict.fromkeys(f.column for f in view.features if f.function not in none))


def _distinct(view: ViewPlan) -> list[str]:
    return list(dict.fromkeys(f.column for f in view.features if f.function == "approx_count_distinct"))


def _entities(views: Sequence[ViewPlan]) -> set[str]:
    return {key for view in views for key in view.entity}


def _table(topic_name: str) -> str:
    return quoted(f"events {topic_name}")
