"""What a change connection captures: a TOML file with the database, its tables, and their mappings.

name = "shop"
database = "postgresql://dealeriq@db.example:5432/shop"

[[tables]]
table = "public.dealers"
topic = "dealers"
timezone = "Europe/Paris"
columns = { dealer_id = "id", event_time = "updated_at" }
constants = { region = "north" }

[connector]                       # any option of Debezium's connector, as it stands
"snapshot.mode" = "no_data"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from connectors.connections import entry_id
from connectors.mapping import ColumnMapping
from schemas.errors import DealerIQError

__all__ = ["PASSWORD_VARIABLE", "CapturedTable", "CdcConfig", "CdcConfigError", "load_config"]

PASSWORD_VARIABLE = "DEALERIQ_CONNECT__DATABASE_PASSWORD"
_KEYS = {"name", "database", "tables", "connector"}
_TABLE_KEYS = {"table", "topic", "columns", "constants", "timezone"}


class CdcConfigError(DealerIQError):
    """The file of a change connection cannot be read, or lacks something. Nothing was started."""

    remedy = "See docs/connect.md for what it holds."
    exit_code = 2


@dataclass(frozen=True)
class CapturedTable:
    """A table, `schema.name`, and how its columns become a topic's fields."""

    table: str
    topic: str
    mapping: ColumnMapping


@dataclass(frozen=True)
class CdcConfig:
    """One change connection. `database` holds no password: that is a setting."""

    name: str
    database: str
    tables: tuple[CapturedTable, ...]
    connector: dict[str, str] = field(default_factory=dict)

    def source_topic(self, table: CapturedTable) -> str:
        """Return the topic that Debezium writes the table's changes to."""
        return f"cdc.{self.name}.{table.table}"

    def debezium(self, replication: int) -> dict[str, str]:
        """Return the connector's options; those of the file win."""
        parts = urlsplit(self.database)
        slot = f"dealeriq_{self.name}".replace("-", "_").replace(".", "_").lower()
        return {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "plugin.name": "pgoutput",
            "database.hostname": parts.hostname or "127.0.0.1",
            "database.port": str(parts.port or 5432),
            "database.user": unquote(parts.username or "postgres"),
            "database.password": f"${{env:{PASSWORD_VARIABLE}}}",
            "database.dbname": parts.path.lstrip("/"),
            "topic.prefix": f"cdc.{self.name}",
            "table.include.list": ",".join(each.table for each in self.tables),
            "slot.name": slot,
            "publication.name": slot,
            "publication.autocreate.mode": "filtered",
            # As text, so that no amount and no time is rounded on the way.
            "decimal.handling.mode": "string",
            "time.precision.mode": "isostring",
            "tombstones.on.delete": "false",
            "exactly.once.support": "required",
            "topic.creation.default.replication.factor": str(replication),
            "topic.creation.default.partitions": "4",
            "topic.creation.default.retention.ms": str(7 * 86_400_000),
            **self.connector,
        }


def load_config(path: Path) -> CdcConfig:
    """Read the file. Raises CdcConfigError and MappingError."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CdcConfigError(f"the connection {path} cannot be read: {error}") from error
    _refuse_others(path, read, _KEYS)
    for wanted in ("name", "database", "tables"):
        if not read.get(wanted):
            raise CdcConfigError(f"{path} says no {wanted}")
    entry_id(str(read["name"]))
    parts = urlsplit(str(read["database"]))
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise CdcConfigError(f"{path}: database is not postgresql://user@host:port/name")
    if parts.password is not None:
        raise CdcConfigError(
            f"{path} holds a password",
            remedy=f"Take it out, and set connect.database_password ({PASSWORD_VARIABLE}).",
        )
    tables = tuple(_table(path, each) for each in read["tables"])
    options = {name: str(value) for name, value in read.get("connector", {}).items()}
    return CdcConfig(str(read["name"]), str(read["database"]), tables, options)


def _table(path: Path, read: dict[str, Any]) -> CapturedTable:
    _refuse_others(path, read, _TABLE_KEYS)
    name, topic_name = str(read.get("table", "")), str(read.get("topic", ""))
    if name.count(".") != 1 or not topic_name:
        raise CdcConfigError(f'{path}: a table needs `table` ("schema.name") and `topic`; came {name!r}')
    mapping = ColumnMapping.of(
        [f"{k}={v}" for k, v in read.get("columns", {}).items()],
        [f"{k}={v}" for k, v in read.get("constants", {}).items()],
        read.get("timezone"),
    )
    return CapturedTable(name, topic_name, mapping)


def _refuse_others(path: Path, read: dict[str, Any], allowed: set[str]) -> None:
    if extra := sorted(read.keys() - allowed):
        raise CdcConfigError(f"{path} has {', '.join(extra)}; allowed are {', '.join(sorted(allowed))}")
