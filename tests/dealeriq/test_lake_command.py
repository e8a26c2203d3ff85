"""`dealeriq lake` on a real lake and broker: what is listed, tidied and filled anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from lake_tables import order, write_events
from typer.testing import CliRunner

from connectors.kafka import ensure_topics, producer
from connectors.lake import LakeTableMissingError, positions
from dealeriq.cli import app
from dealeriq.cli.lake import RecordsGoneError
from dealeriq.settings import Settings
from schemas.errors import DealerIQError

TOPIC = "retraining.requests"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DEALERIQ_LAKE__URL", str(tmp_path / "lake"))
    monkeypatch.setenv("DEALERIQ_DATA_DIR", str(tmp_path))

    def command(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["lake", *words])
        if isinstance(done.exception, DealerIQError):
            raise done.exception
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in words else done.stdout

    return command


def test_tables_are_listed_also_a_broken_one(run: Any, tmp_path: Path) -> None:
    assert run("ls", "--json") == {"lake": str(tmp_path / "lake"), "tables": []}
    for k in range(2):
        write_events(tmp_path / "lake", "orders", [order(k), order(k + 9)], partition=k)
    (orders,) = run("ls", "--json")["tables"]
    assert (orders["topic"], orders["rows"], orders["files"]) == ("orders", 4, 2)
    assert orders["positions"] == {"0": 2, "1": 2}
    assert "4 rows     2 files" in run("ls")
    tidied = run("tidy", "orders", "--json")
    assert (tidied["files_before"], tidied["files_after"], tidied["refreshed"]) == (2, 1, 4)
    (tmp_path / "lake/orders/_delta_log/00000000000000000002.json").write_text('{"cut')
    (broken,) = run("ls", "--json", code=7)["tables"]
    assert "00000000000000000002.json is not whole" in broken["error"]
    assert "dealeriq lake rebuild" in broken["error"]
    with pytest.raises(LakeTableMissingError):
        run("tidy", "chats")


@pytest.mark.services
def test_a_table_is_filled_anew_only_where_the_topic_still_has_it_all(
    run: Any, stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DEALERIQ_LAKE__URL", str(tmp_path / "lake"))
    monkeypatch.setenv("DEALERIQ_LAKE__TOPICS", f'["{TOPIC}"]')
    ensure_topics(stack.kafka, [TOPIC])
    writer = producer(stack.kafka)
    for _ in range(3):
        writer.produce(TOPIC, b"no avro", key="k")
    assert writer.flush(60) == 0
    (waiting,) = run("ls", "--behind", "--json")["tables"]
    assert (waiting["rows"], waiting["behind"] >= 3) == (0, True)
    write_events(tmp_path / "lake", TOPIC, [b"no avro"])
    plan = run("rebuild", TOPIC, "--json")
    assert (plan["executed"], plan["aside"], plan["records"]) == (False, None, waiting["behind"])
    assert positions(tmp_path / "lake", TOPIC) == {0: 1}
    assert "--execute does it" in run("rebuild", TOPIC)
    done = run("rebuild", TOPIC, "--execute", "--json")
    assert Path(done["aside"]).is_dir()
    with pytest.raises(LakeTableMissingError):
        positions(tmp_path / "lake", TOPIC)

    shutil.move(done["aside"], tmp_path / "lake" / TOPIC)
    admin = AdminClient(stack.kafka.client_config())
    for place, end in ((n, e) for n, e in _ends(stack).items() if e):
        where = TopicPartition(TOPIC, place, end)
        admin.delete_records([where], request_timeout=180)[where].result(180)
    with pytest.raises(RecordsGoneError, match="in the lake alone"):
        run("rebuild", TOPIC, "--execute")
    assert positions(tmp_path / "lake", TOPIC) == {0: 1}
    assert run("rebuild", TOPIC, "--execute", "--lose", "--json")["records"] == 0


def _ends(stack: Settings) -> dict[int, int]:
    from streams.verify.broker import Broker

    return Broker(stack.kafka).ends(TOPIC)
