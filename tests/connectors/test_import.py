"""Importing files: mapping, bad input, once only, and kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recount import committed_ids, log_ends

from connectors import demo_data
from connectors.columns import ColumnEncoder
from connectors.files import UnreadableFileError
from connectors.importer import import_file, preview
from connectors.mapping import ColumnMapping, MappingError
from dealeriq.settings import Settings
from schemas.catalogue import topic
from schemas.codec import Encoder

HEADER = "order_id,line,dealer_id,product_id,category,quantity,amount,event_time\n"
GOOD = "{n},0,330,7,GROCERY,1,2.5,2017-03-01T10:00:00Z\n"

_IMPORT = """
import sys
from pathlib import Path
from connectors.importer import import_file
from connectors.settings import KafkaSettings, RegistrySettings
import connectors.importer as importer
importer._COMMIT_S = 0.05
kafka, registry, file = sys.argv[1:]
import_file(KafkaSettings(bootstrap=kafka), RegistrySettings(url=registry), "orders", Path(file),
            rejects=Path(file + ".rejects"), progress=lambda summary: print(summary.rows_read, flush=True))
"""


def _write(folder: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=80), st.floats(allow_nan=False)),
        min_size=1,
    )
)
def test_columns_encode_as_records_do(rows: list[tuple[int, str, float]]) -> None:
    import polars as pl

    records = [
        {
            "dealer_id": text,
            "product_id": text,
            "event_id": text,
            "on_hand": number,
            "event_time": -1 - number // 2,
        }
        for number, text, _ in rows
    ]
    schema = topic("inventory").schema
    assert schema is not None
    one_by_one = [Encoder("inventory", 9).encode(record) for record in records]
    assert ColumnEncoder(schema, 9).encode(pl.DataFrame(records)) == one_by_one


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,3\n", "3 fields"),
        ("1,0,330,7,X,-3,1,2017-01-01\n", "quantity -3 is below 0"),
        ("1,0,330,7,X,1,1,1970-01-01\n", "event_time"),
        ("1,0,330,7,X,1,1,2200-01-01\n", "event_time"),
        ("1,0,,7,X,1,1,2017-01-01\n", "dealer_id is null"),
        ('1,0,330,7,X,1,"1,5",2017-01-01\n', "decimal-comma"),
        ("1,0,330,7,X,1.5,1,2017-01-01\n", "must be a whole number"),
        ("1,0,330,7," + "X" * 300 + ",1,1,2017-01-01\n", "300 characters"),
    ],
)
def test_a_bad_row_is_told_and_the_rest_goes_on(tmp_path: Path, row: str, reason: str) -> None:
    found = preview("orders", _write(tmp_path, "\ufeff" + HEADER + GOOD.format(n=1) + row + GOOD.format(n=2)))
    assert (found.rows, found.good) == (3, 2)
    (example,) = [each[0] for each in found.examples.values()][:1]
    assert reason in example["reason"]
    assert example["line"] == 3


def test_other_encodings_are_told_by_line(tmp_path: Path) -> None:
    bad = GOOD.format(n="caf\u00e9").encode("cp1252")
    path = _write(tmp_path, (HEADER + GOOD.format(n=1)).encode() + bad)
    assert preview("orders", path).good == 1
    assert preview("orders", path, encoding="cp1252").good == 2


def test_missing_columns_name_what_is_there(tmp_path: Path) -> None:
    path = _write(tmp_path, HEADER.replace("dealer_id", "dealer") + GOOD.format(n=1))
    with pytest.raises(
        MappingError, match="no column for dealer_id; the file has order_id, line, dealer,"
    ) as caught:
        preview("orders", path)
    assert "--map dealer_id=dealer" in caught.value.remedy
    assert preview("orders", path, ColumnMapping.of(["dealer_id=dealer"])).good == 1


def test_times_without_a_zone_are_in_the_given_one(tmp_path: Path) -> None:
    path = _write(tmp_path, HEADER + "1,0,330,7,X,1,1,2017-07-01 12:00\n")
    (event,) = preview("orders", path, ColumnMapping.of(timezone="Europe/Paris")).events
    assert event["event_time"] == 1_498_903_200_000


@pytest.mark.parametrize("content", [b"", b"PAR1xxxx", b"\xff\xfea\x00", HEADER.encode()])
def test_what_is_no_file_of_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableFileError):
        preview("orders", _write(tmp_path, content))


def test_the_same_file_twice_adds_nothing(stack: Settings, tmp_path: Path) -> None:
    run = time.time_ns()
    rows = [
        {
            "order_id": f"{run}-{n}",
            "line": 0,
            "dealer_id": "1",
            "product_id": "2",
            "category": "X",
            "quantity": 1,
            "amount": 2.5,
            "event_time": "2017-03-01",
        }
        for n in range(50)
    ]
    path = _write(tmp_path, b"\n".join(map(orjson.dumps, rows)) + b"\n[1]\n", "rows.jsonl")
    before = log_ends(stack, "orders")
    rejects = tmp_path / "rejects"
    first = import_file(stack.kafka, stack.registry, "orders", path, rejects=rejects)
    second = import_file(stack.kafka, stack.registry, "orders", path, rejects=rejects)
    assert (first.rows_produced, first.rows_rejected, first.already_imported) == (50, 1, None)
    assert second.already_imported is not None
    assert sum(committed_ids(stack, "orders", before).values()) == 50
    assert orjson.loads(rejects.read_bytes())["line"] == 51
    again = import_file(stack.kafka, stack.registry, "orders", path, rejects=rejects, again="twice")
    assert again.rows_produced == 50
    assert set(committed_ids(stack, "orders", before).values()) == {2}


def test_a_killed_import_goes_on_at_the_right_row(stack: Settings, tmp_path: Path) -> None:
    import polars as pl

    frame = (
        demo_data.orders(150_000)
        .frame(0, 150_000)
        .with_columns(event_id=pl.col("event_id") + str(time.time_ns()))
    )
    path = tmp_path / "orders.csv"
    frame.write_csv(path)
    with path.open("a") as file:
        file.write("short,row\n")
    before = log_ends(stack, "orders")
    argv = [sys.executable, "-c", _IMPORT, str(stack.kafka.bootstrap), str(stack.registry.url), str(path)]
    for _ in range(2):
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert 0 < int(child.stdout.readline()) < 150_000
            os.kill(child.pid, signal.SIGKILL)
    subprocess.run(argv, check=True, timeout=120)
    found = committed_ids(stack, "orders", before)
    assert found.keys() == set(frame["event_id"])
    assert max(found.values()) == 1
    assert len((tmp_path / "orders.csv.rejects").read_bytes().splitlines()) == 1
