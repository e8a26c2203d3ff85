"""Connections: a source that goes on where it was, by an entry in the ledger beside what it brought.

A connection has a name. Its entry commits in the same transaction as its rows, so after a kill -9 the next run
of that name goes on behind the last committed row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from connectors.ledger import LedgerEntry, read_ledger
from connectors.settings import KafkaSettings, RegistrySettings
from schemas.errors import DealerIQError

__all__ = ["Connection", "UnknownConnectionError", "connections", "entry_id", "forget"]

_PREFIX = "connect-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


class UnknownConnectionError(DealerIQError):
    """A connection has a name that is not allowed, or there is none of that name."""

    remedy = "List the connections with `dealeriq connect ls`."
    exit_code = 2


@dataclass(frozen=True)
class Connection:
    """A connection as the ledger knows it."""

    name: str
    source: str
    topic: str
    rows_read: int
    rows_produced: int
    rows_rejected: int
    finished: bool
    when: str
    state: str | None


def entry_id(name: str) -> str:
    """Return the ledger's id of a connection. Raises UnknownConnectionError for a name that is not allowed."""
    if not _NAME.fullmatch(name):
        raise UnknownConnectionError(
            f"a connection cannot be called {name!r}", remedy="Use letters, digits, dots, dashes, at most 150."
        )
    return f"{_PREFIX}{name}"


def connections(kafka: KafkaSettings, registry: RegistrySettings) -> list[Connection]:
    """Return every connection that ever committed, by name."""
    found = [_connection(e) for k, e in read_ledger(kafka, registry).items() if k.startswith(_PREFIX)]
    return sorted(found, key=lambda each: each.name)


def forget(kafka: KafkaSettings, registry: RegistrySettings, name: str) -> None:
    """Let the next run of a connection start from the beginning. What it brought stays.

    Raises UnknownConnectionError when there is none of that name, OutboxInterruptedError.
    """
    from connectors.outbox import Outbox

    with Outbox(kafka, registry, entry_id(name)) as outbox:
        before = outbox.entry
        if before is None:
            raise UnknownConnectionError(f"no connection is called {name!r}")
        blank: dict[str, Any] = dict.fromkeys(("rows_read", "rows_produced", "rows_rejected"), 0)
        outbox.commit(LedgerEntry(before.import_id, before.topic, before.source, "", **blank))


def _connection(entry: LedgerEntry) -> Connection:
    when = datetime.fromtimestamp(entry.event_time / 1000, UTC).isoformat(timespec="seconds")
    name = entry.import_id.removeprefix(_PREFIX)
    return Connection(
        name, entry.source, entry.topic, entry.rows_read, entry.rows_produced, entry.rows_rejected,
        entry.finished, when, entry.state,
    )  # fmt: skip
