"""One topic's table for its writer: make it, know its positions, append rows and positions in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)

from connectors.lake.errors import (
    LakeBrokenError,
    LakeConflictError,
    LakeLayoutError,
    LakeReplacedError,
    LakeTableMissingError,
    translated,
)
from connectors.lake.layout import DATE, LAYOUT, LAYOUT_PROPERTY, app_id, arrow_schema, table_url
from connectors.lake.location import Root, lake_of
from connectors.lake.objects import unreadable_commit
from schemas.catalogue import topic

__all__ = ["CONFIGURATION", "LakeTable", "open_delta", "read_positions"]

CONFIGURATION: dict[str, str | None] = {
    LAYOUT_PROPERTY: LAYOUT,
    # A commit every few seconds: without a checkpoint each opening would read them all.
    "delta.checkpointInterval": "50",
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_ATTEMPTS = 5
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)


class LakeTable:
    """A topic's table, open for writing; made on the first `append` if it is not there.

    Several writers of one table do no harm: a commit carries the position of each of its partitions as a Delta
    application transaction, so one that was overtaken is refused as a whole, and only what is new goes again.
    """

    def __init__(self, root: Root, topic_name: str) -> None:
        self.topic = topic_name
        self.schema = arrow_schema(topic_name)
        self._lake = lake_of(root)
        self.url = table_url(self._lake.url, topic_name)
        self._table: DeltaTable | None = None
        self._identity: str | None = None
        self._anchor: tuple[int, ...] | None = None
        self._positions: dict[int, int] = {}
        self._opened = False

    def positions(self) -> dict[int, int]:
        """Return the next offset of each partition that the table holds; empty where there is no table.

        Raises LakeUnavailableError, LakeRefusedError, LakeBrokenError, LakeLayoutError.
        """
        if not self._opened:
            self.reload()
        return dict(self._positions)

    def reload(self) -> None:
        """Forget what is known of the table and read it again. Raises what `positions` raises."""
        try:
            table = open_delta(self._lake, self.topic)
        except LakeTableMissingError:
            table = None
        if table is not None:
            self._check(table)
        with translated(self.url):
            self._positions = {} if table is None else read_positions(table, self.topic)
        self._hold(table)
        self._opened = True

    def append(self, rows: pa.Table, positions: Mapping[int, int]) -> int:
        """Commit rows and the positions behind them at once; return how many rows were new.

        Rows below the table's own positions are there already and are left out, so appending the same rows
        twice is appending them once, whoever appended them first. Raises LakeReplacedError, LakeConflictError
        (other writers moved the positions again and again), and what `positions` raises.
        """
        for _ in range(_ATTEMPTS):
            self._follow()
            try:
                return self._commit(rows, positions)
            except LakeConflictError as error:
                conflict = error
                self._anchor = None
        raise conflict

    def _commit(self, rows: pa.Table, positions: Mapping[int, int]) -> int:
        if self._table is None:
            with translated(self.url):
                self._create()
            self.reload()  # another writer may have made it, and filled it, in the same moment
        table, held = self._table, self._positions
        assert table is not None, self.url
        moved = {number: offset for number, offset in positions.items() if offset > held.get(number, -1)}
        if not moved:
            return 0
        fresh = _above(rows, held)
        transactions = [Transaction(app_id(self.topic, n), offset) for n, offset in sorted(moved.items())]
        with translated(self.url):
            names = set(pa.schema(table.schema().to_arrow()).names)
            # A new field of the schema becomes a column here; a column whose field went stays, and is null.
            merge = names != set(self.schema.names)
            write_deltalake(
                table,
                fresh,
                mode="append",
                schema_mode="merge" if merge else None,
                writer_properties=_WRITER,
                commit_properties=CommitProperties(app_transactions=transactions),
            )
            self._hold(table)
        self._positions = held | moved
        return int(fresh.num_rows)

    def _follow(self) -> None:
        """See what others did to the table since: a commit of theirs is read, a table that went is refused.

        A commit onto a table that was removed would leave a log without a beginning, and one onto a table that
        was filled anew might leave a gap.
        """
        if not self._opened:
            self.reload()
            return
        if self._anchor is not None and self._anchor == self._state():
            return
        before, identity = self._positions, self._identity
        self.reload()
        behind = [number for number, offset in before.items() if self._positions.get(number, -1) < offset]
        if behind or (identity is not None and identity != self._identity):
            raise LakeReplacedError(f"{self.url} is not the table that was written to before")

    def _hold(self, table: DeltaTable | None) -> None:
        self._table = table
        self._identity = None if table is None else str(table.metadata().id)
        self._anchor = self._state()

    def _state(self) -> tuple[int, ...] | None:
        """What tells on a folder that nobody touched the table: its newest commit, and none behind it."""
        if self._table is None or not self._lake.is_local:
            return None  # ask the store itself, every time
        number = int(self._table.version())
        log = Path(self.url) / "_delta_log"
        try:
            found = (log / f"{number:020}.json").stat()
        except OSError:
            return None
        if (log / f"{number + 1:020}.json").exists():
            return None
        return number, found.st_ino, found.st_mtime_ns

    def _create(self) -> None:
        DeltaTable.create(
            self.url,
            self.schema,
            mode="ignore",
            partition_by=[DATE],
            name=self.topic,
            description=topic(self.topic).description,
            configuration=CONFIGURATION,
            storage_options=dict(self._lake.options) or None,
            raise_if_key_not_exists=False,
        )

    def _check(self, table: DeltaTable) -> None:
        found = {each.name: each.type for each in pa.schema(table.schema().to_arrow())}
        for field in self.schema:
            there = found.get(field.name, field.type)
            if not _same(there, field.type):
                raise LakeLayoutError(
                    f"{self.url}: column {field.name} is {there}, and the topic's schema has {field.type}"
                )


def open_delta(root: Root, topic_name: str, version: int | None = None, *, current: bool = False) -> DeltaTable:
    """Open a topic's Delta table at a version (the newest by default), its layout checked.

    Raises LakeTableMissingError, LakeLayoutError, LakeUnavailableError, LakeRefusedError, LakeBrokenError.
    """
    lake = lake_of(root)
    url = table_url(lake.url, topic_name, current=current)
    try:
        with translated(url):
            table = DeltaTable(url, version=version, storage_options=dict(lake.options) or None)
            layout = table.metadata().configuration.get(LAYOUT_PROPERTY)
    except LakeBrokenError as error:
        broken = unreadable_commit(lake, topic_name, current=current)
        raise LakeBrokenError(f"{broken} is not whole; {error}") if broken else error from error
    if layout != LAYOUT:
        came = "no layout of ours" if layout is None else f"layout {layout}"
        raise LakeLayoutError(f"{url} has {came}, and this release reads layout {LAYOUT}")
    return table


def read_positions(table: DeltaTable, topic_name: str) -> dict[int, int]:
    """Return the next offset of each partition, as the table's application transactions say."""
    added = pl.DataFrame(table.get_add_actions(flatten=True))
    highest = added["max._partition"].max() if "max._partition" in added.columns else None
    # Transactions are asked for by name; a topic may have more partitions than the catalogue says.
    partitions = max(topic(topic_name).partitions, 0 if highest is None else int(cast(int, highest)) + 1)
    found = {}
    for number in range(partitions):
        offset = table.transaction_version(app_id(topic_name, number))
        if offset is not None:
            found[number] = offset
    return found


def _above(rows: pa.Table, held: Mapping[int, int]) -> pa.Table:
    """The rows at or behind the held positions."""
    places = cast(pl.DataFrame, pl.from_arrow(rows.select(["_partition", "_offset"])))
    there = pl.lit(False)
    for number, offset in held.items():
        there |= (pl.col("_partition") == number) & (pl.col("_offset") < offset)
    keep = places.select((~there).alias("keep"))["keep"]
    return rows if keep.all() else rows.filter(keep.to_arrow())


def _same(one: Any, other: Any) -> bool:
    """Equal but for what Delta names otherwise (the entries of lists and maps)."""
    if pa.types.is_map(one) and pa.types.is_map(other):
        return _same(one.key_type, other.key_type) and _same(one.item_type, other.item_type)
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _same(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return len(one) == len(other) and all(
            a.name == b.name and _same(a.type, b.type) for a, b in zip(one, other, strict=True)
        )
    return bool(one == other)
