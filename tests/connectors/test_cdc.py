"""Change data capture: what a change becomes, and that a real PostgreSQL's changes arrive once each."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from pydantic import SecretStr
from recount import log_ends

from connectors.cdc.changes import ChangeWriter
from connectors.cdc.config import CapturedTable, CdcConfigError, load_config
from connectors.cdc.worker import ConnectRefusedError, Worker
from connectors.kafka import consumer
from connectors.mapping import ColumnMapping, Mapper, MappingError
from connectors.messages import Messages
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.envelope import parse_headers
from tests.postgres_server import postgres

MOMENT = 1_700_000_000_000


@dataclass
class Change:
    """A change as Debezium writes it and confluent-kafka gives it."""

    content: bytes

    def topic(self) -> str:
        return "cdc.shop.public.dealers"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def key(self) -> bytes:
        return b'{"id":1}'

    def value(self) -> bytes:
        return self.content

    def headers(self) -> list[tuple[str, bytes]]:
        return []


def change(op: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> Change:
    return Change(
        json.dumps({"op": op, "before": before, "after": after, "source": {"ts_ms": MOMENT}}).encode()
    )


def dealer(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": f"Dealer {number}", "region": None, "at": "2024-07-01T10:00:00Z"} | more


def writer_of(topic_name: str = "dealers", timezone: str | None = None, **columns: str) -> ChangeWriter:
    columns = columns or {"dealer_id": "id", "event_time": "at"}
    mapping = ColumnMapping.of([f"{k}={v}" for k, v in columns.items()], (), timezone)
    table = CapturedTable("public.dealers", topic_name, mapping)
    return ChangeWriter(table, Mapper(topic_name, mapping), 1, "/connect/shop")


def records(messages: Messages) -> list[Any]:
    decoder = Decoder(lambda _: topic(messages.topic).schema, topic(messages.topic).schema or {})
    return [None if value is None else decoder.decode(value) for value in messages.values]


def test_rows_become_records_and_deletes_tombstones_in_order() -> None:
    ours, dead = writer_of().write(
        [
            change("r", None, dealer(1)),
            change("u", None, dealer(1, name="New")),
            change("d", dealer(1, name=None, at=None), None),
            change("c", None, dealer(1, name="Again")),
        ]
    )
    assert ours.keys == [b"1"] * 4
    assert [each and each["name"] for each in records(ours)] == ["Dealer 1", "New", None, "Again"]
    assert parse_headers(ours.headers[2]).time_ms == MOMENT
    assert not dead.values


def test_a_row_that_gets_another_key_leaves_a_tombstone_behind() -> None:
    ours, _ = writer_of(dealer_id="code", event_time="at", name="name").write(
        [change("u", dealer(1, code="old"), dealer(1, code="new"))]
    )
    assert ours.keys == [b"old", b"new"]
    assert ours.values[0] is None


def test_a_time_without_a_zone_is_in_the_tables_and_a_date_is_a_day() -> None:
    (record,) = records(writer_of(timezone="Europe/Paris").write([change("c", None, dealer(1))])[0])
    assert record["event_time"] == 1_719_820_800_000  # 08:00 UTC
    (record,) = records(writer_of().write([change("c", None, dealer(1, at="2024-07-01Z"))])[0])
    assert record["event_time"] == 1_719_792_000_000
    (record,) = records(
        writer_of(dealer_id="id", event_time="_changed_at").write([change("c", None, dealer(1))])[0]
    )
    assert record["event_time"] == MOMENT


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Change(b"{"), "not a change"),
        (change("c", None, dealer(1, at="yesterday")), "event_time is 'yesterday'"),
        (change("c", None, dealer(1, name="__debezium_unavailable_value")), "REPLICA IDENTITY FULL"),
        (change("d", {"name": "x"}, None), "key is not known"),
        (change("t", None, None), "kind 't'"),
    ],
)
def test_what_cannot_be_taken_over_is_a_dead_letter_with_its_reason(message: Change, words: str) -> None:
    ours, dead = writer_of().write([change("c", None, dealer(2)), message])
    assert ours.keys == [b"2"]
    assert dead.values == [message.content]
    heads = dict(dead.headers[0])
    assert words in heads["dlq_error"].decode()
    assert heads["dlq_offset"] == b"7"


def test_an_event_does_not_change_once_it_happened() -> None:
    stock = writer_of("inventory", dealer_id="id", product_id="name", on_hand="id", event_time="at")
    ours, dead = stock.write([change(op, dealer(1), None if op == "d" else dealer(1)) for op in "cud"])
    assert len(ours.values) == 1
    assert [b"stays as it happened" in dict(heads)["dlq_error"] for heads in dead.headers] == [True, True]


def test_a_table_without_a_mapped_column_ends_the_run() -> None:
    with pytest.raises(MappingError, match="no column 'at'"):
        writer_of().write([change("c", None, {"id": 1})])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'x'", "no database"),
        ("name='x'\ndatabase='mysql://u@h/d'\ntables=[{table='a.b', topic='dealers'}]", "postgresql://"),
        ("name='x'\ndatabase='postgresql://u:p@h/d'\ntables=[{table='a.b', topic='dealers'}]", "password"),
        ("name='x'\ndatabase='postgresql://u@h/d'\ntables=[{table='b', topic='dealers'}]", "schema.name"),
        ("name='x'\ndatabase='postgresql://u@h/d'\ntabels=[]", "tabels"),
        ("name=", "cannot be read"),
    ],
)
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    with pytest.raises(CdcConfigError) as caught:
        load_config(path)
    assert words in str(caught.value)


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[Any, int]]:
    with postgres() as found:
        yield found


def await_that(what: Callable[[], bool], patience_s: float = 240.0) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.5)


def read_from(settings: Any, name: str, since: dict[int, int]) -> list[Any]:
    """Every committed message behind the positions."""
    reader = consumer(settings.kafka, "test-cdc", enable_partition_eof=True)
    reader.assign([TopicPartition(name, partition, offset) for partition, offset in since.items()])
    found, waiting = [], set(since)
    while waiting:
        for message in reader.consume(1_000, timeout=0.2):
            if message.error() is not None:
                waiting.discard(message.partition())
            else:
                found.append(message)
    reader.close()
    return found


@pytest.mark.services
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_each_change_of_a_database_arrives_once_whatever_is_killed(
    supervisor: Supervisor, database: tuple[Any, int], tmp_path: Path
) -> None:
    connection, port = database
    settings = supervisor.settings
    run = f"t{time.time_ns()}"
    connection.run("CREATE TABLE dealers (id text PRIMARY KEY, name text, updated timestamptz DEFAULT now())")
    connection.run(
        "CREATE TABLE lines (id text PRIMARY KEY, dealer text, sku int, pieces int, paid numeric(10,2), "
        "sold timestamp DEFAULT now())"
    )
    connection.run(f"INSERT INTO dealers SELECT '{run}-' || n, 'Dealer ' || n FROM generate_series(1, 5) n")
    insert = (
        "INSERT INTO lines SELECT '{run}-' || n, 'd' || n % 3, n % 7, 2, 19.99 FROM generate_series({a}, {b}) n"
    )
    connection.run(insert.format(run=run, a=1, b=200))
    config = tmp_path / "shop.toml"
    config.write_text(
        f"""
name = "{run}"
database = "postgresql://dealeriq@127.0.0.1:{port}/postgres"
[[tables]]
table = "public.dealers"
topic = "dealers"
columns = {{ dealer_id = "id", event_time = "updated" }}
[[tables]]
table = "public.lines"
topic = "orders"
columns = {{ order_id = "id", dealer_id = "dealer", product_id = "sku", quantity = "pieces", amount = "paid", event_time = "sold" }}
constants = {{ line = "0", category = "GROCERY" }}
"""  # noqa: E501
    )
    since = {name: log_ends(settings, name) for name in ("dealers", "orders", "orders.dlq")}
    settings.connect.database_password = SecretStr("not asked for")
    supervisor.start_services("connect")
    arguments = [sys.executable, "-m", "dealeriq", "connect", "cdc", "--config", str(config), "--json"]

    def start(*more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **settings.environment(), "DEALERIQ_DATA_DIR": str(tmp_path / "data")}
        return subprocess.Popen([*arguments, *more], env=environment, stdout=subprocess.PIPE)

    def arrived(name: str) -> list[str]:
        messages = read_from(settings, name, since[name])
        keys = [str(parse_headers(each.headers()).event_id) for each in messages]
        return keys if name != "dealers" else [f"{each.key().decode()}" for each in messages]

    bridge = start()
    try:
        await_that(lambda: len(arrived("orders")) > 0)
        connection.run(insert.format(run=run, a=201, b=400))
        bridge.send_signal(signal.SIGKILL)
        bridge.wait()
        os.kill(supervisor.child("connect").pid or 0, signal.SIGKILL)
        connection.run(insert.format(run=run, a=401, b=600))
        connection.run(f"UPDATE dealers SET name = 'New', updated = now() WHERE id = '{run}-1'")
        connection.run(f"DELETE FROM dealers WHERE id = '{run}-2'")
        connection.run(f"UPDATE lines SET pieces = 3 WHERE id = '{run}-7'")
        connection.run(f"INSERT INTO lines VALUES ('{run}-bad', 'd1', 1, -4, 1, now())")
        await_that(lambda: supervisor.child("connect").is_ready())
        bridge = start("--idle", "15")
        told, _ = bridge.communicate(timeout=400)
        assert bridge.returncode == 0
        assert json.loads(told)["dead"] == 2
    finally:
        bridge.kill()
        Worker(settings.connect).delete(run)
    ids = arrived("orders")
    assert (len(ids), len(set(ids))) == (600, 600)
    decoder = Decoder.of_topic("dealers", Registry(settings.registry).schema)
    newest = {
        each.key().decode(): each.value() and decoder.decode(each.value())["name"]
        for each in read_from(settings, "dealers", since["dealers"])
    }
    assert newest == {f"{run}-1": "New", f"{run}-2": None, **{f"{run}-{n}": f"Dealer {n}" for n in (3, 4, 5)}}
    reasons = [
        dict(each.headers())["dlq_error"].decode()
        for each in read_from(settings, "orders.dlq", since["orders.dlq"])
    ]
    assert any("quantity -4 is below 0" in reason for reason in reasons)
    assert any("stays as it happened" in reason for reason in reasons)


@pytest.mark.services
def test_the_databases_own_sentence_says_why_it_cannot_be_captured(
    supervisor: Supervisor, database: tuple[Any, int], tmp_path: Path
) -> None:
    _, port = database
    config = tmp_path / "gone.toml"
    config.write_text(
        f'name = "gone"\ndatabase = "postgresql://dealeriq@127.0.0.1:{port}/nowhere"\n'
        'tables = [{ table = "public.dealers", topic = "dealers" }]\n'
    )
    supervisor.settings.connect.database_password = SecretStr("not asked for")
    supervisor.start_services("connect")
    with pytest.raises(ConnectRefusedError, match="nowhere"):
        Worker(supervisor.settings.connect).put("gone", load_config(config).debezium(1))
