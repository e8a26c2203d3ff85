"""Build the warehouse: sources over the lake, dbt's models and tests, then one rename.

A build works in a file of its own beside the warehouse. Readers go on with the old one until the new one stands
whole with every test passed; a build that fails leaves the old one as it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from connectors.lake.location import Lake
from dealeriq.warehouse.contents import NoWarehouseError
from dealeriq.warehouse.sources import SourceVersion, create_sources
from schemas.errors import DealerIQError

__all__ = ["PROJECT", "BuildReport", "WarehouseBusyError", "WarehouseError", "build", "check"]

PROJECT = Path(__file__).parents[2] / "warehouse"
_GOOD = ("success", "pass")


class WarehouseError(DealerIQError):
    """A model or a test of the warehouse failed. The warehouse stands as it was before."""

    remedy = "Look at the rows it names in the file of the failed build, and mend the model or the data."
    exit_code = 7


class WarehouseBusyError(DealerIQError):
    """Another build of the same warehouse runs."""

    remedy = "Wait until it has ended; its result is yours too."
    exit_code = 4


@dataclass
class BuildReport:
    """What one run of dbt did. `failed` and `warned` name models and tests with dbt's sentence."""

    file: str
    models: int = 0
    tests: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    warned: dict[str, str] = field(default_factory=dict)
    sources: list[SourceVersion] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def build(
    lake: Lake, file: Path, *, memory_mb: int = 2_048, progress: Callable[[str], None] = lambda line: None
) -> BuildReport:
    """Build the warehouse anew from the lake as it is now, and put it in place of `file`.

    Raises WarehouseError when a model or a test fails, WarehouseBusyError, and what reading the lake raises.
    """
    from connectors.duck import connect_duckdb

    began = time.monotonic()
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.next")
    with _alone(file):
        for stray in file.parent.glob(f"{fresh.name}*"):
            stray.unlink()
        progress("reading the lake's versions")
        with connect_duckdb(str(fresh)) as connection:
            connection.execute(f"SET memory_limit = '{memory_mb}MiB'")
            sources = create_sources(connection, lake)
            _record(connection, file, sources)
        progress("running the models and their tests")
        target = file.with_name(f".{file.name}.dbt")
        target.mkdir(exist_ok=True)
        report = _dbt("build", fresh, memory_mb, target)
        report.sources = sources
        report.seconds = round(time.monotonic() - began, 3)
        if report.failed:
            raise WarehouseError(f"the warehouse was not replaced: {_sentences(report)} (file: {fresh})")
        with connect_duckdb(str(fresh)) as connection:
            # The views name files that the lake will one day sweep away.
            connection.execute("DROP SCHEMA lake CASCADE; CHECKPOINT")
        report.file = str(file)
        fresh.replace(file)
    return report


def check(file: Path, *, memory_mb: int = 2_048) -> BuildReport:
    """Run the project's tests over the warehouse as it stands; failures are in the report.

    Raises NoWarehouseError.
    """
    if not file.exists():
        raise NoWarehouseError(f"there is no warehouse at {file}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".warehouse-") as room:
        copy = Path(room) / file.name
        shutil.copyfile(file, copy)  # dbt opens its database to write
        report = _dbt("test", copy, memory_mb, Path(room))
    report.file = str(file)
    report.seconds = round(time.monotonic() - began, 3)
    return report


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    with file.with_name(f".{file.name}.lock").open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WarehouseBusyError(f"a build of {file} runs already") from None
        yield


def _record(connection: Any, file: Path, sources: list[SourceVersion]) -> None:
    """Write down what this build reads, behind what earlier ones read."""
    connection.execute(
        "CREATE SCHEMA meta; CREATE TABLE meta.builds "
        "(built_at TIMESTAMP, topic VARCHAR, lake_version BIGINT, positions VARCHAR)"
    )
    if file.exists():
        connection.execute(f"ATTACH '{str(file).replace(chr(39), chr(39) * 2)}' AS old (READ_ONLY)")
        connection.execute("INSERT INTO meta.builds FROM old.meta.builds; DETACH old")
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [(now, each.topic, each.version, json.dumps(each.positions)) for each in sources]
    connection.executemany("INSERT INTO meta.builds VALUES (?, ?, ?, ?)", rows)


def _dbt(command: str, file: Path, memory_mb: int, target: Path) -> BuildReport:
    """Run dbt in a process of its own: it holds global state, and its imports would stay in ours.

    What it parsed is kept in `target`, which makes its next run there faster.
    """
    results = target / "run_results.json"
    results.unlink(missing_ok=True)
    arguments = [
        sys.executable, "-m", "dbt.cli.main", "--log-path", str(target), command, "--project-dir", str(PROJECT),
        "--profiles-dir", str(PROJECT), "--target-path", str(target),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "DEALERIQ_WAREHOUSE_FILE": str(file),
        "DEALERIQ_WAREHOUSE_MEMORY": f"{memory_mb}MiB",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=target
    )
    try:
        found = json.loads(results.read_bytes())["results"]
    except (OSError, ValueError, KeyError):
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise WarehouseError(f"dbt could not run the project: {' '.join(said[-3:])[:500]}") from None
    report = BuildReport(str(file))
    for each in found:
        name = str(each["unique_id"]).split(".")[2]
        is_test = str(each["unique_id"]).startswith("test.")
        report.tests += is_test
        report.models += not is_test
        words = " ".join(str(each.get("message") or each["status"]).split())[:500]
        if each["status"] == "warn":
            report.warned[name] = words
        elif each["status"] not in _GOOD:
            report.failed[name] = words
    if done.returncode != 0 and not report.failed:
        report.failed["dbt"] = f"it ended with status {done.returncode}"
    return report


def _sentences(report: BuildReport) -> str:
    return "; ".join(f"{name}: {words}" for name, words in report.failed.items())[:2_000]
