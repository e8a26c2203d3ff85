"""Debezium's changes of one table become messages of an inbound topic.

An inserted or updated row is mapped as a file's row is; a deleted one becomes a tombstone on a compacted topic.
On a topic of events an update or a delete cannot be taken over, since what happened does not change: it goes to
the dead letters, as what cannot be mapped does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from connectors.cdc.config import CapturedTable
from connectors.flat import chunk_of, flat
from connectors.kafka import dead_letter_headers
from connectors.mapping import Mapper
from connectors.messages import Headers, Messages, MessageWriter
from schemas.catalogue import topic
from schemas.envelope import headers
from schemas.ids import event_id

__all__ = ["CHANGED_AT", "ChangeWriter"]

CHANGED_AT = "_changed_at"
"""Column with the time at which the database committed the change, ms since the epoch; every table has it."""

_STAGE = "cdc"
_DATE = re.compile(r"\d{4}-\d\d-\d\dZ")
_UNSENT = "__debezium_unavailable_value"
Row = dict[str, str | None]


class _Message(Protocol):
    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...


class _RefusedError(Exception):
    """A change that does not become a message; the reason is its text."""


class ChangeWriter:
    """Write the changes of one table as messages of its topic and its dead letters.

    `schema_id` is the registry's id of the topic's value schema; `source` becomes `ce_source`.
    """

    def __init__(self, table: CapturedTable, mapper: Mapper, schema_id: int, source: str) -> None:
        self._topic = table.topic
        self._compacted = topic(table.topic).compacted
        self._mapping = table.mapping
        self._mapper = mapper
        self._writer = MessageWriter(table.topic, schema_id, source)
        self._source = source
        self._local = mapper.time_columns if table.mapping.timezone != "UTC" else ()
        self._checked = False

    def write(self, messages: Sequence[_Message]) -> tuple[Messages, Messages]:
        """Return what goes to the topic and what goes to its dead letters, each in the order of the changes.

        Raises MappingError when the table lacks a column that the mapping names.
        """
        refused: dict[int, str] = {}
        rows: dict[int, Row] = {}
        gone: dict[int, Row] = {}
        for at, message in enumerate(messages):
            try:
                before, after = self._sides(message)
            except _RefusedError as error:
                refused[at] = str(error)
                continue
            if after is not None:
                rows[at] = after
            if before is not None:
                gone[at] = before
        made: dict[int, tuple[bytes, bytes | None, Headers]] = self._mapped(rows, refused)
        removed = self._removed(gone, made, refused)
        ordered = [each for at in range(len(messages)) for each in (removed.get(at), made.get(at)) if each]
        ours = Messages(
            self._topic,
            [key for key, _, _ in ordered],
            [value for _, value, _ in ordered],
            [head for _, _, head in ordered],
        )
        return ours, self._dead(messages, refused)

    def _sides(self, message: _Message) -> tuple[Row | None, Row | None]:
        """The row that is no more, and the row that is now; either may be None."""
        try:
            change = orjson.loads(message.value() or b"")
            kind, moment = change["op"], change["source"]["ts_ms"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _RefusedError("the value is not a change as Debezium writes it") from None
        if kind not in ("c", "r", "u", "d"):
            raise _RefusedError(f"a change of kind {kind!r} has no row")
        if kind in ("u", "d") and not self._compacted:
            what = "updated" if kind == "u" else "deleted"
            raise _RefusedError(f"the row was {what}, and an event of {self._topic} stays as it happened")
        before, after = (
            None if change.get(side) is None else self._row(change[side]) | {CHANGED_AT: str(moment)}
            for side in ("before", "after")
        )
        if after is not None:
            if not self._checked:
                self._mapper.check_columns(list(after))
                self._checked = True
            self._refuse_unsent(after)
        elif before is None:
            raise _RefusedError("the change holds no row")
        return before, after

    def _row(self, columns: dict[str, Any]) -> Row:
        """A row as text. Debezium ends times and dates with Z, also those that have no zone."""
        row = flat(columns)
        for name, value in row.items():
            if value and value.endswith("Z") and (name in self._local or _DATE.fullmatch(value)):
                row[name] = value[:-1]
        return row

    def _refuse_unsent(self, row: Row) -> None:
        unsent = [name for name, value in row.items() if value == _UNSENT]
        used = [name for name in unsent if name in self._mapping.sources or name in self._mapper.fields]
        if used:
            raise _RefusedError(
                f"PostgreSQL did not send {', '.join(used)}, which is large and was not changed; "
                "ALTER TABLE ... REPLICA IDENTITY FULL makes it"
            )

    def _mapped(
        self, rows: dict[int, Row], refused: dict[int, str]
    ) -> dict[int, tuple[bytes, bytes | None, Headers]]:
        if not rows:
            return {}
        frame, bad = self._mapper.map(chunk_of(list(rows.values()), list(rows)))
        refused.update({each.line: each.reason for each in bad})
        good = [at for at in rows if at not in refused]
        if not good:
            return {}
        written = self._writer.write(frame)
        return dict(zip(good, zip(written.keys, written.values, written.headers, strict=True), strict=True))

    def _removed(
        self, gone: dict[int, Row], made: dict[int, Any], refused: dict[int, str]
    ) -> dict[int, tuple[bytes, bytes | None, Headers]]:
        """Tombstones: of a deleted row, and of the old key of a row that was given another."""
        found: dict[int, tuple[bytes, bytes | None, Headers]] = {}
        keys = self._mapper.keys(chunk_of(list(gone.values()), list(gone))) if gone else []
        for (at, row), key in zip(gone.items(), keys, strict=True):
            if at in refused or (at in made and (key is None or made[at][0] == key.encode())):
                continue
            if key is None:
                refused[at] = (
                    "the deleted row's key is not known; its column must be of the primary key, "
                    "or ALTER TABLE ... REPLICA IDENTITY FULL"
                )
                continue
            moment = int(row[CHANGED_AT] or 0)
            identity = event_id(self._topic, key, "deleted", moment)
            found[at] = (key.encode(), None, headers(identity, self._topic, self._source, moment, key))
        return found

    def _dead(self, messages: Sequence[_Message], refused: dict[int, str]) -> Messages:
        keys: list[bytes] = []
        values: list[bytes | None] = []
        heads: list[Headers] = []
        for at in sorted(refused):
            message = messages[at]
            place = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            keys.append(message.key() or b"")
            values.append(message.value())
            heads.append(dead_letter_headers(*place, message.headers(), refused[at], _STAGE))
        return Messages(f"{self._topic}.dlq", keys, values, heads)
