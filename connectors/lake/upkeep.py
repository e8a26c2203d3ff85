"""Keeping tables in order: small files become large ones, and what no version needs any more goes.

Both are commits of their own beside the writer's: neither changes a row or a position.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

from deltalake import WriterProperties

from connectors.lake.errors import LakeConflictError, translated
from connectors.lake.layout import DATE
from connectors.lake.location import Root
from connectors.lake.reading import active_files
from connectors.lake.table import open_delta

__all__ = ["Compacted", "compact", "vacuum"]

TARGET_BYTES = 128 * 1024 * 1024
_TODAY_FILES = 8
"""Today's partition is joined once it has so many small files; a past day's as soon as it has two."""

_WRITER = WriterProperties(compression="ZSTD", compression_level=3)


@dataclass(frozen=True)
class Compacted:
    """What a round of compaction did to one table."""

    days: tuple[str, ...]
    files_before: int
    files_after: int


def compact(root: Root, topic_name: str, *, every: bool = False, current: bool = False) -> Compacted:
    """Join a table's small files, day by day; a day that is done and past is not touched again.

    `every` joins today's files too, however few. Raises LakeTableMissingError.
    """
    before = active_files(root, topic_name, current=current)
    small: defaultdict[str, int] = defaultdict(int)
    for each in before:
        small[each.date] += each.size < TARGET_BYTES // 2
    today = datetime.now(UTC).date().isoformat()
    days = [
        day
        for day, count in sorted(small.items())
        # A current table has no days, and grows like today's partition.
        if count >= (2 if every or (day and day < today) else _TODAY_FILES)
    ]
    done = []
    for day in days:
        table = open_delta(root, topic_name, current=current)
        try:
            with translated(table.table_uri):
                table.optimize.compact(
                    partition_filters=[(DATE, "=", day)] if day else None,
                    target_size=TARGET_BYTES,
                    max_concurrent_tasks=1,
                    writer_properties=_WRITER,
                )
        except LakeConflictError:
            continue  # another one joined them
        done.append(day)
    after = len(active_files(root, topic_name, current=current)) if done else len(before)
    return Compacted(tuple(done), len(before), after)


def vacuum(
    root: Root, topic_name: str, retention_h: float, *, execute: bool = True, current: bool = False
) -> list[str]:
    """Delete files that no version of the last `retention_h` hours has; return their names.

    Versions older than that can no longer be read; rows as of any position still can. Files of a commit that
    is being made are younger, so a running writer is not disturbed.
    """
    table = open_delta(root, topic_name, current=current)
    with translated(table.table_uri):
        gone = table.vacuum(
            retention_hours=max(1, int(retention_h)),
            dry_run=not execute,
            enforce_retention_duration=False,
            full=True,  # also what a killed writer left without a commit
        )
    return sorted(gone)
