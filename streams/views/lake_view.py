"""The lake view: every topic, record by record, appended to its Delta table."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from connectors.lake import LakeConflictError, LakeTable, LakeUnavailableError, Root, Rows
from connectors.registry import RegistryUnavailableError
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["LakeView"]


class LakeView(View):
    """Appends `topics` to their tables, each with one commit a batch that carries the positions behind it.

    A record that cannot be decoded is a row too, with its bytes: rows equal records.

    Args:
        root: the lake.
        topics: names of the catalogue.
        fetch_schema: schema of a registry id (`Registry.schema`).
    """

    name = "lake-view"
    retried = (LakeUnavailableError, LakeConflictError, RegistryUnavailableError)

    def __init__(self, root: Root, topics: Iterable[str], fetch_schema: Callable[[int], Any]) -> None:
        self.topics = tuple(topics)
        self._tables = {name: LakeTable(root, name) for name in self.topics}
        self._rows = {name: Rows(name, fetch_schema) for name in self.topics}
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the positions that the tables hold."""
        found: Position = {}
        for name, table in self._tables.items():
            table.reload()
            found |= {(name, number): offset for number, offset in table.positions().items()}
        return found

    def apply(self, messages: Sequence[Any]) -> None:
        """Append the messages, a commit a topic; what a table holds already is left out."""
        by_topic: defaultdict[str, list[Any]] = defaultdict(list)
        for message in messages:
            by_topic[message.topic()].append(message)
        for name, records in by_topic.items():
            rows = self._rows[name].of(records)
            behind = {record.partition(): record.offset() + 1 for record in records}
            self._tables[name].append(rows, behind)
            self._fresh(records)

    def _fresh(self, records: Sequence[Any]) -> None:
        """How long each record took to be readable, to a tenth of a second."""
        now_ms = time.time_ns() // 1_000_000
        ages = Counter([(now_ms - record.timestamp()[1]) // 100 for record in records])
        self._meters.ages((max(age, 0) / 10, times) for age, times in ages.items())
