"""Bring a file of rows into a topic, once.

Rows and the ledger's entry commit together, so a killed import goes on at the right row, and a file that was
already imported with the same mapping adds nothing. A bad row goes to the rejects file and the rest goes on.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl

from connectors.files import BadRow, UnreadableFileError, format_of, read_chunks
from connectors.kafka import ensure_topics
from connectors.ledger import LedgerEntry
from connectors.mapping import ColumnMapping, Mapper, MappingError
from connectors.messages import MessageWriter
from connectors.outbox import Outbox, OutboxInterruptedError
from connectors.registry import Registry
from connectors.rejects import append_rejects, keep_rejects
from connectors.settings import KafkaSettings, RegistrySettings
from schemas.catalogue import topic

__all__ = ["ImportSummary", "Preview", "import_file", "inbound", "preview", "show_progress", "spooled"]

_COMMIT_S = 1.0
_SAMPLES = 3  # examples shown of each kind of problem


@dataclass
class ImportSummary:
    """What an import did. `rows_*` count the whole file, `resumed_at` the rows an earlier run had done."""

    topic: str
    source: str
    import_id: str
    rows_read: int = 0
    rows_produced: int = 0
    rows_rejected: int = 0
    resumed_at: int = 0
    seconds: float = 0.0
    already_imported: str | None = None
    rejects: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass
class Preview:
    """What an import would do: the first events, and every problem with its count and some examples."""

    topic: str
    source: str
    rows: int = 0
    good: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, frame: pl.DataFrame, bad: list[BadRow], rows: int, events: int) -> None:
        """Take in some rows; at most `events` records are kept."""
        self.rows += rows
        self.good += frame.height
        if len(self.events) < events and frame.height:
            self.events += frame.head(events - len(self.events)).to_dicts()
        counts = Counter(self.problems)
        for each in bad:
            for reason in each.reason.split("; "):
                kind = _kind(reason)
                counts[kind] += 1
                if len(self.examples.setdefault(kind, [])) < _SAMPLES:
                    self.examples[kind].append(each.record())
        self.problems = dict(counts.most_common())


def preview(
    topic_name: str,
    path: Path,
    mapping: ColumnMapping | None = None,
    *,
    file_format: str | None = None,
    encoding: str = "utf-8",
    events: int = 5,
) -> Preview:
    """Read the whole file and touch nothing. Raises MappingError or UnreadableFileError."""
    mapper = Mapper(inbound(topic_name), mapping or ColumnMapping())
    found = Preview(topic_name, path.name)
    for frame, bad, rows in _mapped(path, mapper, file_format, encoding):
        found.add(frame, bad, rows, events)
    return found


def import_file(
    kafka: KafkaSettings,
    registry: RegistrySettings,
    topic_name: str,
    path: Path,
    mapping: ColumnMapping | None = None,
    *,
    source: str | None = None,
    file_format: str | None = None,
    encoding: str = "utf-8",
    rejects: Path | None = None,
    again: str | None = None,
    progress: Callable[[ImportSummary], None] | None = None,
) -> ImportSummary:
    """Import a file; return what was done. `again` names a repeat on purpose: another import of the same rows.

    A repeat's events have the same ids, so what counts by id still counts them once. Raises MappingError and
    UnreadableFileError before anything is produced, OutboxFencedError when the same import runs twice at once.
    """
    mapping = mapping or ColumnMapping()
    mapper = Mapper(inbound(topic_name), mapping)
    kind = format_of(path, file_format)
    _first_columns(path, mapper, kind, encoding)
    fingerprint = _fingerprint(path, topic_name, mapping, kind, encoding, again)
    name = f"import-{fingerprint[:32]}"
    source = source or path.name
    rejects = rejects or Path(f"{source}.rejects.jsonl")
    ensure_topics(kafka, [topic_name, "imports"])
    schema_id = Registry(registry).register_all([topic_name])[f"{topic_name}-value"]
    writer = MessageWriter(topic_name, schema_id, f"/import/{fingerprint[:32]}")
    summary = ImportSummary(topic_name, source, name)
    began = time.monotonic()
    for attempt in range(6):
        try:
            with Outbox(kafka, registry, name, linger_ms=20) as outbox:
                if outbox.entry is not None and outbox.entry.finished and attempt == 0:
                    return _already(summary, outbox.entry)
                _run(outbox, mapper, writer, path, kind, encoding, fingerprint, rejects, summary, progress)
            break
        except OutboxInterruptedError:
            if attempt == 5:
                raise
            time.sleep(0.5 * 2**attempt)
    summary.seconds = time.monotonic() - began
    return summary


@contextmanager
def spooled(stream: IO[bytes], folder: Path | None = None) -> Iterator[Path]:
    """A stream as a file: its content must be known before its first row, to know whether it was imported."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix="dealeriq-import-") as file:
        while block := stream.read(1 << 20):
            file.write(block)
        file.flush()
        yield Path(file.name)


def _run(
    outbox: Outbox,
    mapper: Mapper,
    writer: MessageWriter,
    path: Path,
    kind: str,
    encoding: str,
    fingerprint: str,
    rejects: Path,
    summary: ImportSummary,
    progress: Callable[[ImportSummary], None] | None,
) -> None:
    start = outbox.entry
    done = start.rows_read if start else 0
    summary.resumed_at = done
    summary.rows_produced = start.rows_produced if start else 0
    summary.rows_rejected = start.rows_rejected if start else 0
    summary.rows_read = 0
    keep_rejects(rejects, summary.rows_rejected)
    commit_at = time.monotonic() + _COMMIT_S

    def entry(finished: bool) -> LedgerEntry:
        return LedgerEntry(
            summary.import_id,
            summary.topic,
            summary.source,
            fingerprint,
            summary.rows_read,
            summary.rows_produced,
            summary.rows_rejected,
            finished,
        )

    for frame, bad, rows in _mapped(path, mapper, kind, encoding, skip=done):
        summary.rows_read += rows
        if summary.rows_read <= done:
            continue
        if frame.height:
            outbox.send(writer.write(frame))
        summary.rows_produced += frame.height
        if bad:
            # Written before the commit; a resumed import drops the lines that were not committed.
            append_rejects(rejects, bad)
            summary.rows_rejected += len(bad)
            summary.rejects = str(rejects)
        if time.monotonic() >= commit_at:
            outbox.commit(entry(finished=False))
            commit_at = time.monotonic() + _COMMIT_S
            if progress is not None:
                progress(summary)
    outbox.commit(entry(finished=True))
    if summary.rows_rejected:
        summary.rejects = str(rejects)
    if progress is not None:
        progress(summary)


def _mapped(
    path: Path, mapper: Mapper, kind: str | None, encoding: str, skip: int = 0
) -> Iterator[tuple[pl.DataFrame, list[BadRow], int]]:
    """Yield each chunk's records, its bad rows, and how many rows it had; the first `skip` rows unmapped."""
    read, checked = 0, False
    for chunk in read_chunks(path, format_of(path, kind), encoding):
        if chunk.frame.width and not checked:
            mapper.check_columns(chunk.frame.columns)
            checked = True
        read += chunk.rows
        if read <= skip:
            yield pl.DataFrame(), [], chunk.rows
        else:
            yield *mapper.map(chunk), chunk.rows
    if read == 0:
        raise UnreadableFileError(f"{path.name} has no rows", remedy="Give a file with at least one row.")


def _first_columns(path: Path, mapper: Mapper, kind: str, encoding: str) -> None:
    for chunk in read_chunks(path, format_of(path, kind), encoding, rows=100):
        if chunk.frame.width:
            mapper.check_columns(chunk.frame.columns)
            return


def inbound(topic_name: str) -> str:
    """Return the name of a topic that others may write to. Raises MappingError."""
    if not topic(topic_name).inbound:
        raise MappingError(
            f"{topic_name} is made by the system; rows go to inbound topics",
            remedy="List them with `dealeriq topics ls`.",
        )
    return topic_name


def _fingerprint(
    path: Path, topic_name: str, mapping: ColumnMapping, kind: str, encoding: str, again: str | None
) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    how = orjson.dumps([topic_name, kind, encoding, again])
    return sha256(digest.digest() + mapping.digest + how).hexdigest()


def _already(summary: ImportSummary, entry: LedgerEntry) -> ImportSummary:
    summary.rows_read, summary.rows_produced = entry.rows_read, entry.rows_produced
    summary.rows_rejected = entry.rows_rejected
    summary.resumed_at = entry.rows_read
    summary.already_imported = datetime.fromtimestamp(entry.event_time / 1000, UTC).isoformat(
        timespec="seconds"
    )
    return summary


def _kind(reason: str) -> str:
    """A reason without the row's own value, so that equal problems are counted together."""
    words = reason.split("'")
    if len(words) >= 3:
        return f"{words[0]}...{words[-1]}"
    return " ".join("..." if word.lstrip("-")[:1].isdigit() else word for word in reason.split())


def show_progress(summary: ImportSummary) -> None:
    """Print one line of progress on stderr."""
    line = f"\r{summary.rows_read:,} rows read, {summary.rows_rejected:,} rejected"
    print(line, end="", file=sys.stderr, flush=True)
