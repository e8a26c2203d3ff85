"""What is known of the parts of each product and of what was published, in an SQLite file with its position.

It is a view of the topics: where it is lost it is filled again from them. A change of data and position is one
transaction of SQLite; the log ahead of writing needs no sync to survive a kill, and after a power cut the file
holds an earlier state, with the position of that state.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from schemas.errors import DealerIQError
from streams.views.view import Position

__all__ = ["Held", "HybridStore", "HybridStoreAwayError", "HybridStoreDamagedError", "Published", "Row"]

_FORMAT = 1
_FILE = "parts.db"
_ASKED = 500  # of the variables that a statement may have
_WAIT_S = 5.0

_TABLES = """
CREATE TABLE parts (
  topic TEXT NOT NULL, chunk TEXT NOT NULL, product TEXT NOT NULL, kind TEXT NOT NULL, encoder TEXT NOT NULL,
  dimension INTEGER NOT NULL, number INTEGER NOT NULL, fingerprint TEXT NOT NULL, time_ms INTEGER NOT NULL,
  vector BLOB NOT NULL);
CREATE UNIQUE INDEX part ON parts (topic, chunk);
CREATE INDEX owned ON parts (product);
CREATE TABLE encoders (
  topic TEXT, kind TEXT, encoder TEXT, dimension INTEGER, records INTEGER NOT NULL,
  PRIMARY KEY (topic, kind, encoder, dimension)) WITHOUT ROWID;
CREATE TRIGGER come AFTER INSERT ON parts BEGIN
  INSERT INTO encoders VALUES (NEW.topic, NEW.kind, NEW.encoder, NEW.dimension, 1)
  ON CONFLICT DO UPDATE SET records = records + 1;
END;
CREATE TRIGGER gone AFTER DELETE ON parts BEGIN
  UPDATE encoders SET records = records - 1
  WHERE topic = OLD.topic AND kind = OLD.kind AND encoder = OLD.encoder AND dimension = OLD.dimension;
END;
CREATE TABLE published (
  product TEXT PRIMARY KEY, chunk TEXT NOT NULL UNIQUE, encoder TEXT NOT NULL, mark TEXT NOT NULL,
  at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (
  topic TEXT, part INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, part)) WITHOUT ROWID;
"""


class HybridStoreAwayError(DealerIQError):
    """The file of parts cannot be written for now: the disk is full, or another process has it."""

    remedy = "Make room on the disk of hybrid.folder, and let one hybrid-view run on it; it goes on by itself."
    exit_code = 4


class HybridStoreDamagedError(DealerIQError):
    """The file of parts is no database of this release."""

    remedy = "Remove the folder: it is filled again from embeddings, and nothing is published twice for that."
    exit_code = 7


class Row(NamedTuple):
    """The newest record of a part; `number` is the chunk's place in its text; the vector is little-endian
    float32.
    """

    topic: str
    chunk: str
    product: str
    kind: str
    encoder: str
    dimension: int
    number: int
    fingerprint: str
    time_ms: int
    vector: bytes


class Held(NamedTuple):
    """What a part is, without its vector."""

    topic: str
    kind: str
    encoder: str
    dimension: int
    fingerprint: str
    time_ms: int


class Published(NamedTuple):
    """What was published last of a product, at which offset; `mark` is empty where it was taken back."""

    encoder: str
    mark: str
    offset: int


class HybridStore:
    """Opens, or makes, the file in a folder, for one process alone. Close it.

    Every method raises HybridStoreAwayError and HybridStoreDamagedError.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._file, timeout=_WAIT_S, isolation_level=None)
            run = self._connection.execute
            try:
                run("PRAGMA locking_mode = EXCLUSIVE")
                run("PRAGMA journal_mode = WAL")
                run("PRAGMA synchronous = NORMAL")
                with self.transaction():
                    found = run("PRAGMA user_version").fetchone()[0]
                    if found == 0:
                        for each in _statements(_TABLES):
                            run(each)
                        run(f"PRAGMA user_version = {_FORMAT}")
                    elif found != _FORMAT:
                        raise HybridStoreDamagedError(f"{self._file} has format {found}, wanted is {_FORMAT}")
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that the block changes, or nothing of it where it raises."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._told():
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def positions(self) -> Position:
        """Return the next offset of each partition."""
        with self._told():
            rows = self._connection.execute("SELECT topic, part, next FROM positions").fetchall()
        return {(topic, part): offset for topic, part, offset in rows}

    def move(self, behind: Position) -> None:
        """Set the next offsets of some partitions."""
        self._many(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
            [(*at, offset) for at, offset in behind.items()],
        )

    def put(self, row: Row) -> None:
        """Keep a part instead of the one under its key."""
        self.drop(row.topic, row.chunk)
        self._many(f"INSERT INTO parts VALUES ({', '.join('?' * len(row))})", [row])

    def drop(self, topic: str, chunk: str) -> str | None:
        """Forget a part; return whose it was, None where there is none."""
        with self._told():
            found = self._connection.execute(
                "DELETE FROM parts WHERE topic = ? AND chunk = ? RETURNING product", (topic, chunk)
            ).fetchall()
        return found[0][0] if found else None

    def encoders(self, topic: str, kind: str) -> list[tuple[str, int, int]]:
        """Return the encoders of a kind in a topic, each with the length of its vectors and their number."""
        with self._told():
            return self._connection.execute(
                "SELECT encoder, dimension, records FROM encoders WHERE topic = ? AND kind = ? AND records > 0",
                (topic, kind),
            ).fetchall()

    def products(self, after: str, most: int) -> list[str]:
        """Return the products with parts or with something published that come after a name, in order."""
        with self._told():
            rows = self._connection.execute(
                "SELECT product FROM parts WHERE product > ?1 UNION "
                "SELECT product FROM published WHERE product > ?1 ORDER BY 1 LIMIT ?2",
                (after, most),
            ).fetchall()
        return [product for (product,) in rows]

    def held(self, products: Sequence[str]) -> dict[str, list[Held]]:
        """Return the parts of products, without their vectors, in the order of chunks."""
        found: dict[str, list[Held]] = {}
        columns = "product, topic, kind, encoder, dimension, fingerprint, time_ms"
        for product, *rest in self._of(products, f"SELECT {columns} FROM parts", "ORDER BY number, chunk"):
            found.setdefault(product, []).append(Held(*rest))
        return found

    def rows(self, products: Sequence[str]) -> dict[str, list[Row]]:
        """Return the parts of products, with their vectors, in the order of chunks."""
        found: dict[str, list[Row]] = {}
        for each in self._of(products, "SELECT * FROM parts", "ORDER BY number, chunk"):
            row = Row(*each)
            found.setdefault(row.product, []).append(row)
        return found

    def published(self, products: Sequence[str]) -> dict[str, Published]:
        """Return what was published last of products."""
        rows = self._of(products, "SELECT product, encoder, mark, at FROM published", "")
        return {product: Published(*rest) for product, *rest in rows}

    def owner_of(self, chunk: str) -> str | None:
        """Return the product whose fused vector has a key; None where none was published."""
        with self._told():
            found = self._connection.execute(
                "SELECT product FROM published WHERE chunk = ?", (chunk,)
            ).fetchone()
        return None if found is None else found[0]

    def keep(self, changes: Mapping[str, tuple[str, Published]]) -> None:
        """Remember what was published of products: key and record."""
        self._many(
            "INSERT OR REPLACE INTO published VALUES (?, ?, ?, ?, ?)",
            [(product, chunk, *each) for product, (chunk, each) in changes.items()],
        )

    def forget(self, product: str) -> None:
        """Forget that something was published of a product."""
        self._many("DELETE FROM published WHERE product = ?", [(product,)])

    def _of(self, products: Sequence[str], select: str, order: str) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(products), _ASKED):
            asked = products[start : start + _ASKED]
            places = ", ".join("?" * len(asked))
            with self._told():
                yield from self._connection.execute(
                    f"{select} WHERE product IN ({places}) {order}", asked
                ).fetchall()

    def _many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._told():
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say SQLite's errors in our words."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise HybridStoreAwayError(f"{self._file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise HybridStoreDamagedError(f"{self._file}: {error}") from error


def _statements(script: str) -> Iterator[str]:
    """Each statement of a script: `executescript` would end the transaction."""
    statement = ""
    for line in script.strip().splitlines():
        statement += f"{line}\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
