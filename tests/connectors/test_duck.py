"""DuckDB prints nothing: a command's stdout is its data."""

import subprocess
import sys

_LONG = "SELECT sum(hash(a.range * b.range)) FROM range(3_000) a, range(20_000) b"


def test_a_long_query_prints_nothing():
    asked = (
        "from connectors.duck import connect_duckdb\n"
        "with connect_duckdb(threads=1) as sql:\n"
        "    sql.execute('SET progress_bar_time = 1')\n"
        f"    assert sql.sql('{_LONG}').fetchall()[0][0] > 0\n"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_its_own_way_would_print():
    """What the test above proves would not be known of a query that is too short."""
    asked = (
        "import duckdb\n"
        "with duckdb.connect(config={'threads': 1}) as sql:\n"
        "    sql.execute('SET progress_bar_time = 1')\n"
        f"    sql.sql('{_LONG}').fetchall()\n"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=120)
    assert "%" in ran.stdout
