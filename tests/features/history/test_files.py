"""`dealeriq features history`: files in, files out, whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectors.lake import LakeFileMissingError
from dealeriq.cli.features import app
from dealeriq.cli.history import OutputExistsError
from features.history import METADATA_KEY, EntityRowsError, UnknownFeatureError
from features.history.files import origin_path, read_frame
from tests.features.history.test_history import HOUR, START
from tests.lake_tables import order, write_events

ROWS = "dealer_id,event_timestamp,label\n0367,2017-01-01T00:30:00Z,yes\n412,2017-01-01T02:30:00+02:00,no\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DEALERIQ_DATA_DIR", str(tmp_path))
    events = [order(i, dealer_id="0367", event_time=START + i, amount=i / 4) for i in range(3)]
    write_events(tmp_path / "lake", "orders", events)

    def invoke(entities: str, out: str, *arguments: str, text: str = ROWS) -> Any:
        path = tmp_path / entities
        if not path.exists():
            path.write_text(text)
        given = ["history", "--entities", str(path), "--out", str(tmp_path / out), *arguments]
        result = CliRunner().invoke(app, given)
        if result.exception is not None:
            raise result.exception
        return result

    return invoke


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_each_format_in_and_out_gives_the_same(run: Any, tmp_path: Path, ending: str) -> None:
    chosen = ("--features", "dealer_orders.count_1h,dealer_orders.amount_mean_90d", "--statuses")
    run("rows.csv", f"first.{ending}", *chosen)
    text = {"dealer_id", "event_timestamp", "dealer_orders__count_1h"} if ending == "csv" else set()
    found = read_frame(tmp_path / f"first.{ending}", text)
    assert found.column_names == [
        "dealer_id", "event_timestamp", "label",
        "dealer_orders__count_1h", "dealer_orders__count_1h__status",
        "dealer_orders__amount_mean_90d", "dealer_orders__amount_mean_90d__status",
    ]  # fmt: skip
    rows = [list(map(str, row.values())) for row in found.to_pylist()]
    assert rows == [
        ["0367", "2017-01-01T00:30:00Z", "yes", "3", "PRESENT", "0.25", "PRESENT"],
        ["412", "2017-01-01T02:30:00+02:00", "no", "None", "UNKNOWN", "None", "UNKNOWN"],
    ]
    # What was written can be asked about again, and its times are still times.
    keys = found.select(["dealer_id", "event_timestamp", "label"])
    pq.write_table(keys, tmp_path / "again.parquet")
    run("again.parquet", f"second.{ending}", *chosen)
    assert read_frame(tmp_path / f"second.{ending}", text).equals(found)


def test_the_output_says_what_it_came_from(run: Any, tmp_path: Path) -> None:
    result = run("rows.csv", "out.parquet", "--as-of", "arrival", "--json")
    assert "orders: lake version 1" in result.stderr
    assert "chats.enriched: no table in the lake" in result.stderr
    assert "2 of 2 rows are later than the newest event in the lake" in result.stderr
    origin = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[METADATA_KEY])
    assert (origin["as_of"], origin["versions"]["orders"], origin["positions"]["orders"]) == (
        "arrival",
        1,
        {"0": 3},
    )
    assert json.loads(result.stdout)["origin"] == origin
    run("rows.csv", "out.csv", "--as-of", "arrival")
    assert json.loads(origin_path(tmp_path / "out.csv").read_text()) == origin


def test_times_in_a_file_may_be_any_that_name_their_zone(run: Any, tmp_path: Path) -> None:
    for name, text in (
        ("ms.jsonl", f'{{"dealer_id": 412, "event_timestamp": {START}}}\n'),
        ("text.jsonl", '{"dealer_id": "412", "event_timestamp": "2017-01-01T00:00:00Z"}\n'),
        ("ms.csv", f"event_timestamp,dealer_id\n{START},412\n"),
    ):
        run(name, f"{name}.parquet", text=text)
        assert pq.read_table(tmp_path / f"{name}.parquet").num_rows == 1


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("rows.csv", "", EntityRowsError, "cannot be read as csv"),
        ("rows.csv", "dealer_id,event_timestamp\n", EntityRowsError, "holds no rows"),
        ("rows.parquet", "no parquet", EntityRowsError, "cannot be read as parquet"),
        ("rows.jsonl", "{", EntityRowsError, "cannot be read as jsonl"),
        ("rows.xlsx", "", EntityRowsError, "no known format"),
        ("rows.csv", "dealer,event_timestamp\n1,2017\n", EntityRowsError, "dealer_id is missing"),
        ("rows.csv", "dealer_id,event_timestamp\n1,2017-01-01\n", EntityRowsError, "row 1: .* no time zone"),
        ("rows.csv", "dealer_id,event_timestamp\n1,2091-01-01Z\n", EntityRowsError, "row 1: .* is not a time"),
        (
            "rows.csv",
            "dealer_id,event_timestamp\n,2017-01-01T00:00Z\n",
            EntityRowsError,
            "row 1 has no dealer_id",
        ),
        ("rows.csv", "dealer_id,event_timestamp\n1,2091-01-01T00:00Z\n", EntityRowsError, "in the future"),
    ],
)
def test_bad_files_are_one_clear_error_and_leave_nothing(
    run: Any, tmp_path: Path, name: str, text: str, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        run(name, "out.csv", text=text)
    assert not [each for each in tmp_path.iterdir() if "out" in each.name]


def test_bad_requests_and_a_broken_lake_leave_nothing(run: Any, tmp_path: Path) -> None:
    with pytest.raises(EntityRowsError, match="no known format"):
        run("rows.csv", "out")
    with pytest.raises(UnknownFeatureError, match="did you mean dealer"):
        run("rows.csv", "out.csv", "--service", "dealers")
    (tmp_path / "there.csv").touch()
    with pytest.raises(OutputExistsError, match=r"there\.csv exists"):
        run("rows.csv", "there.csv")
    with pytest.raises(EntityRowsError, match=r"absent\.csv"):
        read_frame(tmp_path / "absent.csv", [])
    for file in (tmp_path / "lake" / "orders").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(LakeFileMissingError):
        run("rows.csv", "out.csv")
    assert not list(tmp_path.glob("*out*"))


def test_frames_longer_than_one_go_are_written_in_order(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dealeriq.cli.history._ROWS", 3)
    frame = pa.table({"dealer_id": [str(i) for i in range(8)], "event_timestamp": [START + HOUR] * 8})
    pq.write_table(frame, tmp_path / "long.parquet")
    for ending in ("parquet", "csv", "jsonl"):
        run("long.parquet", f"out.{ending}")
        found = read_frame(tmp_path / f"out.{ending}", ["dealer_id"])
        assert found["dealer_id"].to_pylist() == [str(i) for i in range(8)]
