"""The page on bad input: its tests exist, and its list is whole."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "bad-input.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not re.match(r"\| (bad input|trouble) \|", line)
]
# What the product promises to have an answer to; each must be in a row of its own.
PROMISED = [
    "undecodable bytes", "unknown schema id", "missing field", "absurd field", "unknown dealer", "duplicate id",
    "late or out of order", "null key", "5 MB message", "tombstone for an unknown key",
    "other partitions than declared", "registry down", "Redis full", "Redis down", "port taken", "disk full",
    "no Java", "Python too new", "corrupted jar", "half-written commit", "missing Parquet file",
    "two writers at once", "lake of another version", "wrong columns", "in the future", "without a zone",
    "S3 down", "S3 refusing",
]  # fmt: skip


def test_every_test_that_the_page_names_exists() -> None:
    sources = "".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", sources))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named - there == set()


def test_every_row_is_proved() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        assert len(row) == 4, row
        assert re.search(r"`test_\w+`", row[3]), row[0]


def test_everything_promised_has_a_row() -> None:
    assert [each for each in PROMISED if not any(each in row[0] for row in ROWS)] == []
