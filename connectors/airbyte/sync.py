"""Read one stream of a source into an inbound topic; its state commits together with the rows that it covers.

Rows wait in a spool (memory, then disk) until the source says by a STATE that it need not send them again; only
then does a short transaction begin, with the rows, the state and the counts in it. So a kill -9 leaves either
both or neither, and readers of committed records never wait for a slow source.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from connectors.airbyte.errors import SourceFailedError
from connectors.airbyte.source import Source, Stream
from connectors.airbyte.state import State
from connectors.connections import entry_id
from connectors.flat import chunk_of, flat
from connectors.importer import Preview, inbound
from connectors.kafka import ensure_topics
from connectors.ledger import TOPIC, LedgerEntry
from connectors.mapping import ColumnMapping, Mapper
from connectors.messages import MessageWriter
from connectors.outbox import Outbox, OutboxInterruptedError
from connectors.registry import Registry
from connectors.rejects import append_rejects, keep_rejects
from connectors.settings import KafkaSettings, RegistrySettings

__all__ = ["EMITTED_AT", "CommitAt", "SyncSummary", "preview_stream", "sync_stream"]

CommitAt = Literal["state", "end"]
_ATTEMPTS = 6
_COMMIT_S = 1.0
_ROWS = 10_000
_IN_MEMORY = 32 << 20

EMITTED_AT = "_emitted_at"
"""Column with the time at which the source emitted the record, ms since the epoch; every stream has it."""


@dataclass
class SyncSummary:
    """What one read brought. `rows_*` count this run; `resumed_at` the rows of all runs before it."""

    connection: str
    source: str
    stream: str
    topic: str
    rows_read: int = 0
    rows_produced: int = 0
    rows_rejected: int = 0
    resumed_at: int = 0
    commits: int = 0
    seconds: float = 0.0
    rejects: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def preview_stream(
    source: Source,
    stream_name: str,
    topic_name: str,
    mapping: ColumnMapping | None = None,
    *,
    events: int = 5,
    rows: int = 1_000,
) -> Preview:
    """Read the first rows from the start and touch nothing. Raises MappingError and what the source raises."""
    source.check()
    stream, mapper = _prepared(source, stream_name, topic_name, mapping or ColumnMapping())
    found = Preview(topic_name, f"{source.name}.{stream_name}")
    taken = []
    for message in source.read(stream):
        if message["type"] == "RECORD":
            taken.append(_row_of(message["record"]))
            if len(taken) == rows:
                break
    if taken:
        frame, bad = mapper.map(chunk_of(taken, range(1, len(taken) + 1), _columns_of(stream)))
        found.add(frame, bad, len(taken), events)
    return found


def sync_stream(
    kafka: KafkaSettings,
    registry: RegistrySettings,
    source: Source,
    stream_name: str,
    topic_name: str,
    mapping: ColumnMapping | None = None,
    *,
    name: str,
    rejects: Path | None = None,
    commit_at: CommitAt = "state",
    progress: Callable[[SyncSummary], None] | None = None,
) -> SyncSummary:
    """Read what the stream has to give since the last run of the connection `name`; return what was done.

    `commit_at` "end" commits once, when the source is done, and ignores the states on the way: for a source
    that cannot go on in the middle though it says so.

    Raises MappingError and SourceConfigError before anything is produced; SourceFailedError, with what was
    confirmed kept; OutboxFencedError when the connection runs twice.
    """
    mapping = mapping or ColumnMapping()
    import_id = entry_id(name)
    stream, mapper = _prepared(source, stream_name, topic_name, mapping)
    ensure_topics(kafka, [topic_name, TOPIC])
    schema_id = Registry(registry).register_all([topic_name])[f"{topic_name}-value"]
    how = orjson.dumps([topic_name, source.name, stream_name])
    first: LedgerEntry | None = None
    blank = LedgerEntry(
        import_id,
        topic_name,
        f"{source.name}.{stream_name}",
        sha256(mapping.digest + how).hexdigest(),
    )
    summary = SyncSummary(name, source.name, stream_name, topic_name)
    began = time.monotonic()
    for attempt in range(_ATTEMPTS):
        try:
            with Outbox(kafka, registry, import_id, linger_ms=20) as outbox, _Spool() as spool:
                first = first or outbox.entry or blank
                _Run(
                    outbox=outbox,
                    mapper=mapper,
                    writer=MessageWriter(topic_name, schema_id, f"/connect/{name}"),
                    stream=stream,
                    blank=blank,
                    first=first,
                    rejects=rejects or Path(f"{name}.rejects.jsonl"),
                    summary=summary,
                    spool=spool,
                    progress=progress,
                ).read(source, commit_at)
            break
        except OutboxInterruptedError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    summary.seconds = time.monotonic() - began
    return summary


@dataclass
class _Run:
    """One pass over the stream, from the entry that the outbox found. `first` is where this command began."""

    outbox: Outbox
    mapper: Mapper
    writer: MessageWriter
    stream: Stream
    blank: LedgerEntry
    first: LedgerEntry
    rejects: Path
    summary: SyncSummary
    spool: _Spool
    progress: Callable[[SyncSummary], None] | None

    def read(self, source: Source, commit_at: CommitAt) -> None:
        entry = self.outbox.entry or self.blank
        summary, first = self.summary, self.first
        summary.resumed_at = first.rows_read
        summary.rows_read = entry.rows_read - first.rows_read
        summary.rows_produced = entry.rows_produced - first.rows_produced
        summary.rows_rejected = entry.rows_rejected - first.rows_rejected
        keep_rejects(self.rejects, entry.rows_rejected)
        state = State(entry.state)
        # A stream that is read whole starts over, unless the last run did not come to its end.
        start = state.value if self.stream.incremental or not entry.finished else None
        due, uncommitted = time.monotonic() + _COMMIT_S, False
        try:
            for message in source.read(self.stream, start):
                if message["type"] == "RECORD":
                    self.spool.add(message["record"])
                else:
                    state.take(message["state"])
                    self.spool.cover()
                    uncommitted = True
                if uncommitted and commit_at == "state" and time.monotonic() >= due:
                    self._commit(state, finished=False)
                    due, uncommitted = time.monotonic() + _COMMIT_S, False
        except SourceFailedError:
            if uncommitted and commit_at == "state":  # what it confirmed before it failed is good
                self._commit(state, finished=False)
            raise
        self.spool.cover()
        self._commit(state, finished=True)

    def _commit(self, state: State, *, finished: bool) -> None:
        summary, first = self.summary, self.first
        text = state.text()
        for rows in self.spool.covered():
            at = first.rows_read + summary.rows_read + 1
            frame, bad = self.mapper.map(chunk_of(rows, range(at, at + len(rows)), _columns_of(self.stream)))
            summary.rows_read += len(rows)
            summary.rows_produced += frame.height
            if frame.height:
                self.outbox.send(self.writer.write(frame))
            if bad:
                append_rejects(self.rejects, bad)
                summary.rows_rejected += len(bad)
                summary.rejects = str(self.rejects)
        self.outbox.commit(
            replace(
                self.blank,
                rows_read=first.rows_read + summary.rows_read,
                rows_produced=first.rows_produced + summary.rows_produced,
                rows_rejected=first.rows_rejected + summary.rows_rejected,
                finished=finished,
                state=text,
            )
        )
        self.spool.forget()
        summary.commits += 1
        if self.progress is not None:
            self.progress(summary)


class _Spool:
    """Records that wait: those that a state covers, and those behind it. Up to a bound in memory."""

    def __init__(self) -> None:
        self._covered = self._file()
        self._behind = self._file()

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._covered.close()
        self._behind.close()

    def add(self, record: dict[str, Any]) -> None:
        """Put a record behind the last state."""
        self._behind.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def cover(self) -> None:
        """A state came: it covers every record so far."""
        if self._covered.tell() == 0:
            self._covered, self._behind = self._behind, self._covered
            return
        self._behind.seek(0)
        shutil.copyfileobj(self._behind, self._covered, 1 << 20)
        self._empty(self._behind)

    def covered(self) -> Iterator[list[dict[str, str | None]]]:
        """Yield the covered records as rows, some at a time."""
        self._covered.seek(0)
        while lines := list(islice(self._covered, _ROWS)):
            yield [_row_of(orjson.loads(line)) for line in lines]

    def forget(self) -> None:
        """Drop the covered records: they are committed."""
        self._empty(self._covered)

    @staticmethod
    def _file() -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="dealeriq-spool-")

    @staticmethod
    def _empty(file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()


def _row_of(record: dict[str, Any]) -> dict[str, str | None]:
    row = flat(record.get("data") or {})
    emitted = record.get("emitted_at")
    row[EMITTED_AT] = None if emitted is None else str(int(emitted))
    return row


def _columns_of(stream: Stream) -> list[str]:
    return [*stream.columns, EMITTED_AT]


def _prepared(
    source: Source, stream_name: str, topic_name: str, mapping: ColumnMapping
) -> tuple[Stream, Mapper]:
    """Check stream and columns before anything is read."""
    mapper = Mapper(inbound(topic_name), mapping)
    stream = source.stream(stream_name)
    columns = stream.columns
    if columns:
        # An object whose inside is not declared may hold what the mapping names.
        inside = [
            column
            for column in mapping.sources
            if any(column.startswith(f"{declared}.") for declared in columns)
        ]
        mapper.check_columns([*_columns_of(stream), *inside])
    return stream, mapper
