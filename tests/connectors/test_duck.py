"""DuckDB prints nothing: a command's stdout is its data."""

import subprocess
import sys

import pytest

_ASKED = """
from connectors.duck import connect_duckdb
from duckdb import connect
with {connect}() as sql:
    sql.execute("SET threads = 1; SET progress_bar_time = 1")
    assert sql.sql("SELECT sum(hash(a.range * b.range)) FROM range(3_000) a, range(20_000) b").fetchall()
"""


@pytest.mark.parametrize(("connect", "prints"), [("connect_duckdb", False), ("connect", True)])
def test_a_long_query_prints_by_duckdbs_own_way_alone(connect: str, prints: bool) -> None:
    """That it would print is known of the same query, else nothing was proved of ours."""
    command = [sys.executable, "-c", _ASKED.format(connect=connect)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ("%" in ran.stdout, bool(ran.stdout)) == (prints, prints)
