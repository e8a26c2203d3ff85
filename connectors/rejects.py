"""The rejects file: rows that did not become events, one JSON object a line.

Lines are written before the transaction that counts them commits, so whoever resumes cuts the file to the
count that was committed: the others come again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from connectors.files import BadRow

__all__ = ["append_rejects", "keep_rejects"]


def append_rejects(path: Path, bad: Iterable[BadRow]) -> None:
    """Write rows at the end of the file, which is made if missing."""
    with path.open("ab") as file:
        for each in bad:
            file.write(orjson.dumps(each.record(), default=str, option=orjson.OPT_APPEND_NEWLINE))


def keep_rejects(path: Path, lines: int) -> None:
    """Cut the file to its first `lines`; one that is absent stays so."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        for _ in range(lines):
            if not file.readline():
                break
        file.truncate(file.tell())
