"""The real services: what they keep when they are killed, and how they are spoken to safely."""

import json
import os
import signal
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import SecretStr

from connectors.settings import KafkaSettings
from dealeriq.runtime import Supervisor
from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java
from dealeriq.settings import Settings, load

GIB = 1 << 30


def create(client: dict[str, object], name: str) -> None:
    admin = AdminClient(client)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)


def produce(client: dict[str, object], name: str, values: list[bytes]) -> None:
    producer = Producer({**client, "acks": "all"})
    for value in values:
        producer.produce(name, value)
    assert producer.flush(20) == 0


def consume(client: dict[str, object], name: str, count: int) -> list[bytes]:
    consumer = Consumer({**client, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    consumer.subscribe([name])
    values: list[bytes] = []
    deadline = time.monotonic() + 180
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


@pytest.mark.services
def test_the_registry_speaks_confluents_protocol(stack: Settings) -> None:
    with urllib.request.urlopen(f"{stack.registry.address}/subjects", timeout=5) as answer:
        assert isinstance(json.load(answer), list)


@pytest.mark.services
def test_flink_offers_its_slots_and_its_metrics(flink: Settings, supervisor: Supervisor) -> None:
    with urllib.request.urlopen(f"{flink.flink.url}/overview", timeout=5) as answer:
        assert json.load(answer)["slots-total"] == flink.flink.slots
    assert any("flink-sql-connector-kafka" in jar.name for jar in Path(str(flink.flink.lib_dir)).glob("*.jar"))
    port = json.loads((supervisor.data_dir / "ports.json").read_text())["flink_jobmanager_metrics"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"flink_jobmanager" in answer.read()


@pytest.mark.services
def test_the_stack_fits_in_three_gib(flink: Settings, supervisor: Supervisor) -> None:
    assert sum(status.rss for status in supervisor.status()) < 3 * GIB


@pytest.mark.fault
@pytest.mark.services
def test_kafka_keeps_its_address_and_records_through_kill_9(tmp_path: Path) -> None:
    values = [str(number).encode() for number in range(1000)]
    with Supervisor(
        load({}), ("kafka",), tmp_path, prefer_default_ports=False, progress=lambda line: None
    ) as first:
        address = first.settings.kafka.address
        client = first.settings.kafka.client_config()
        create(client, "kept")
        produce(client, "kept", values[:500])
        (before,) = first.status()
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        deadline = time.monotonic() + 180
        while not (first.status()[0].state == "ready" and first.status()[0].pid != before.pid):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        produce(client, "kept", values[500:])
    with Supervisor(
        load({}), ("kafka",), tmp_path, prefer_default_ports=False, progress=lambda line: None
    ) as again:
        assert again.settings.kafka.address == address
        assert consume(again.settings.kafka.client_config(), "kept", 1000) == values


@pytest.mark.services
def test_a_broker_that_asks_for_a_password_is_reached_with_it(tmp_path: Path) -> None:
    password = 'pass "word"'
    escaped = password.replace('"', '\\\\"')
    with Supervisor(
        load({}), (), tmp_path, prefer_default_ports=False, progress=lambda line: None
    ) as supervisor:
        port, controller = supervisor.port("kafka", 0), supervisor.port("controller", 0)
        properties = tmp_path / "server.properties"
        properties.write_text(
            "process.roles=broker,controller\nnode.id=1\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
            "listener.security.protocol.map=SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            "controller.listener.names=CONTROLLER\ninter.broker.listener.name=SASL_PLAINTEXT\n"
            "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
            "listener.name.sasl_plaintext.plain.sasl.jaas.config="
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="dealer" password="{escaped}" user_dealer="{escaped}";\n'
            f"log.dirs={tmp_path / 'data'}\n"
            "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n"
        )
        classpath = ":".join(str(jar) for jar in ensure("kafka"))
        base = [java(), "-Xmx256m", "-XX:+UseSerialGC", "-cp", classpath]
        form = ["kafka.tools.StorageTool", "format", "--cluster-id", "ZGVhbGVyaXEtbG9jYWwtMQ", "--config"]
        supervisor.start_process("format", [*base, *form, str(properties)], once=True, wait_s=0)
        while supervisor.child("format").state != "done":
            time.sleep(0.1)
        settings = KafkaSettings(
            bootstrap=f"127.0.0.1:{port}",
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="dealer",
            sasl_password=SecretStr(password),
        )

        def ready() -> bool:
            try:
                return bool(
                    AdminClient({**settings.client_config(), "log_level": 0}).list_topics(timeout=1).brokers
                )
            except Exception:
                return False

        supervisor.start_process("kafka-sasl", [*base, "kafka.Kafka", str(properties)], ready)
        create(settings.client_config(), "guarded")
        produce(settings.client_config(), "guarded", [b"one"])
        assert consume(settings.client_config(), "guarded", 1) == [b"one"]
        settings.sasl_password = SecretStr("wrong")
        assert not ready()
