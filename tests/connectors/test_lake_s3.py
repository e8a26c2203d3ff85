"""The lake in an object store: a real S3 server that checks signatures, written, read, tidied, and away."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pc
import pytest
from lake_tables import NOW, messages, order, schema_of, write_events
from s3_server import BUCKET, S3Server

from connectors.lake import (
    Lake,
    LakeBrokenError,
    LakeBucketMissingError,
    LakeFileMissingError,
    LakeRefusedError,
    LakeTable,
    LakeTableMissingError,
    LakeUnavailableError,
    Rows,
    compact,
    files,
    positions,
    put_aside,
    refresh,
    relation,
    translated,
    vacuum,
    version,
)
from dealeriq.warehouse.sources import TOPICS, create_sources
from features.history import History
from features.plan import load

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]

DAY = 86_400_000


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


def rows(root: Path | Lake, topic: str = "orders", **how: Any) -> list[Any]:
    with duckdb.connect() as sql, translated(topic):
        return relation(sql, root, topic, **how).order("_partition, _offset").fetchall()  # type: ignore[no-any-return]


def fill(root: Path | Lake) -> None:
    for k in range(0, 40, 10):
        write_events(root, "orders", [order(k + i) for i in range(10)], time_ms=NOW + k * DAY // 20)
    write_events(root, "orders", [order(3), b"\x00 poison", None, order(77)], partition=3)


def test_everything_that_is_read_from_a_folder_is_read_from_s3(s3: S3Server, tmp_path: Path) -> None:
    far, near = s3.lake("whole/with a space"), tmp_path / "near"
    for root in (far, near):
        fill(root)
        refresh(root, "orders")
    assert rows(far) == rows(near)
    some = {"version": 2, "select": ["event_id", "_partition", "_offset"]}
    assert rows(far, **some) == rows(near, **some)
    assert rows(far, positions={3: 2}) == rows(near, positions={3: 2})
    assert rows(far, current=True) == rows(near, current=True)
    assert positions(far, "orders") == {0: 40, 3: 4}
    assert [each.rpartition("/")[0] for each in files(far, "orders")] == [
        each.rpartition("/")[0].replace(str(near), far.url) for each in files(near, "orders")
    ]
    asked = pa.table(
        {"dealer_id": ["D0", "D3", "D9"], "event_timestamp": [order(40)["event_time"] + k for k in (0, 9, 9)]}
    )
    answers = []
    for root in (far, near):
        with History(load(), ["dealer_orders"], root) as history:
            answers.append(history.of(asked, statuses=True).to_pylist())
    assert answers[0] == answers[1]
    sources = []
    for root in (Lake(str(near)), far):
        with duckdb.connect() as sql:
            create_sources(sql, root)
            sources.append(
                [sql.sql(f'FROM lake."{t.replace(".", "_")}" ORDER BY ALL').fetchall() for t in TOPICS]
            )
    assert sources[0] == sources[1]


def test_small_files_are_joined_old_ones_deleted_and_a_table_put_aside(s3: S3Server) -> None:
    lake = s3.lake("tidied")
    fill(lake)
    before = rows(lake)
    done = compact(lake, "orders", every=True)
    assert (done.files_before, done.files_after) == (5, 3)
    assert rows(lake) == before
    assert vacuum(lake, "orders", 72) == []  # a version of the last hours has them all
    aside = put_aside(lake, "orders")
    with pytest.raises(LakeTableMissingError):
        version(lake, "orders")
    kept = s3.folder / aside.removeprefix("s3://")
    assert len(list(kept.rglob("*.parquet"))) == 5 + 2  # as they came, and joined
    fill(lake)
    assert rows(lake) == before


def test_writers_at_once_leave_each_row_once(s3: S3Server) -> None:
    lake, make = s3.lake("writers"), Rows("orders", schema_of("orders"))

    def write(_: int) -> int:
        table = LakeTable(lake, "orders")
        return sum(
            table.append(make.of(messages("orders", [order(k + i) for i in range(3)], offset=k)), {0: k + 3})
            for k in range(0, 15, 3)
        )

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(write, range(2))) == 15
    assert [row[15] for row in rows(lake)] == list(range(15))


def test_half_a_commit_and_a_missing_file_are_named(s3: S3Server) -> None:
    lake = s3.lake("broken")
    for k in range(2):
        write_events(lake, "orders", [order(k)])
    table = s3.folder / BUCKET / "broken/orders"
    commit = table / "_delta_log/00000000000000000002.json"
    whole = commit.read_bytes()
    os.truncate(commit, len(whole) // 2)
    with pytest.raises(LakeBrokenError, match=r"s3://.*/00000000000000000002\.json is not whole"):
        write_events(lake, "orders", [order(2)])
    with commit.open("r+b") as opened:
        opened.write(whole)
    assert positions(lake, "orders") == {0: 2}
    next(table.rglob("*.parquet")).unlink()
    with pytest.raises(LakeFileMissingError, match=r"\.parquet"):
        rows(lake)


def history(s3: S3Server, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`dealeriq features history`, as a user runs it."""
    asked, out = tmp_path / "asked.csv", tmp_path / "out.csv"
    pc.write_csv(pa.table({"dealer_id": ["D1"], "event_timestamp": [order(40)["event_time"]]}), asked)
    return subprocess.run(
        [
            sys.executable, "-m", "dealeriq", "features", "history", "--service", "dealer_orders",
            "--entities", str(asked), "--out", str(out), "--overwrite",
        ],
        env={**os.environ, "DEALERIQ_DATA_DIR": str(tmp_path), **variables},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_wrong_secret_a_missing_bucket_and_a_store_that_is_away_are_one_sentence(
    s3: S3Server, tmp_path: Path
) -> None:
    lake = s3.lake("told")
    fill(lake)
    before = rows(lake)
    wrong = s3.lake("told", secret="not-the-secret")
    nowhere = Lake("s3://no-such-bucket/told", lake.options)
    trials: list[tuple[Lake, type[Exception]]] = [
        (wrong, LakeRefusedError), (nowhere, LakeBucketMissingError),
    ]  # fmt: skip
    acts: list[Callable[[Lake], Any]] = [
        lambda at: positions(at, "orders"),
        lambda at: write_events(at, "orders", [order(99)]),
    ]
    for root, kind in trials:
        for act in acts:
            with pytest.raises(kind) as told:
                act(root)
            assert "\x1b" not in str(told.value)
            assert "the-secret" not in str(told.value)
    assert "secret" not in repr(wrong)

    refused = history(s3, tmp_path, **s3.variables("told", secret="not-the-secret"))
    assert refused.returncode == 3, refused.stderr
    assert "lake.s3_secret_key" in refused.stderr
    assert "not-the-secret" not in refused.stderr
    assert "Traceback" not in refused.stderr

    s3.stop()
    try:
        with pytest.raises(LakeUnavailableError):
            write_events(lake, "orders", [order(99)])
        away = history(s3, tmp_path, **s3.variables("told"))
        assert away.returncode == 4, away.stderr
        assert "lake.s3_endpoint" in away.stderr
        assert "Traceback" not in away.stderr
    finally:
        s3.start()
    assert rows(lake) == before
