"""The tiles job and what it should never have been sent; and a registry that is down when it needs it."""

from __future__ import annotations

import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from test_flink_job import PARTITIONS, Stage, order

from connectors.registry import Registry
from dealeriq.runtime.jars import cache_dir, ensure
from dealeriq.runtime.java import java
from dealeriq.settings import Settings
from features.plan import Plan, load
from schemas.codec import Encoder
from streams.flink.job import FlinkTarget, submit
from streams.flink.rest import FlinkRest
from streams.flink.spec import Timing

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(900)]

PATIENCE_S = 240.0
LARGE = 8_388_608


class Gate:
    """A port that refuses connections until it is opened, and then leads to another one."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        self.port = self._listener.getsockname()[1]

    def open(self) -> None:
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                came, _ = self._listener.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._target))
            for one, two in ((came, other), (other, came)):
                threading.Thread(target=self._pass_on, args=(one, two), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture(scope="module")
def gate(flink: Settings) -> Iterator[Gate]:
    made = Gate(int(flink.registry.address.partition("://")[2].partition("/")[0].rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture(scope="module")
def stage(flink: Settings, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A job whose registry is behind the gate, on topics that take 8 MiB, as after someone raised the limit."""
    whole = load()
    views = {name: view for name, view in whole.views.items() if name == "dealer_orders"}
    tag = uuid.uuid4().hex[:8]
    topics = ["orders", "orders.dlq", *(view.topic for view in views.values())]
    names = {name: f"{tag}.{name}" for name in topics}
    large = {"max.message.bytes": str(LARGE)}
    new = [NewTopic(name, PARTITIONS, 1, config=large) for name in names.values()]
    admin = AdminClient(flink.kafka.client_config())
    for created in admin.create_topics(new).values():
        created.result(60)
    folder = tmp_path_factory.mktemp("flink-bad-input")
    target = FlinkTarget(
        url=str(flink.flink.url),
        lib_dir=Path(str(flink.flink.lib_dir)),
        java=java(),
        compiler=ensure("tools")[0],
        cache=cache_dir() / "flink",
        checkpoint_dir=(folder / "checkpoints").as_uri(),
        state_dir=folder / "state",
    )
    ids = Registry(flink.registry).register_all(["orders", *(view.topic for view in views.values())])
    plan = Plan(whole.project, whole.distinct_precision, views, {})
    running = Stage(flink, target, plan, names, ids, f"{tag}-")
    registry = flink.registry.address.replace(f":{gate._target}", f":{gate.port}")
    running.handles = submit(
        target, plan, schema_ids=ids, kafka=flink.kafka.flink_properties(),
        registry={"url": registry, "patience_s": "2"}, parallelism=1,
        timing=Timing(checkpoint_ms=500), names=names, prefix=f"{tag}-",
    )  # fmt: skip
    yield running
    for handle in running.handles:
        FlinkRest(target.url).cancel(handle.job_id)


def test_a_registry_that_is_down_is_waited_for_and_nothing_becomes_a_dead_letter(
    stage: Stage, gate: Gate
) -> None:
    rng = random.Random(11)
    stage.send([order(i, rng) for i in range(100)])
    rest, deadline = FlinkRest(stage.target.url), time.monotonic() + PATIENCE_S
    while (failure := rest.failure(stage.handles[0].job_id)) is None:
        assert time.monotonic() < deadline, stage.state()
        time.sleep(1)
    assert "the schema registry at" in failure[1]
    assert "gave no schema" in failure[1]
    assert stage.read("orders.dlq") == []
    gate.open()
    stage.settled()
    assert stage.read("orders.dlq") == []


def test_null_keys_are_folded_and_a_5_mb_message_is_a_whole_dead_letter(stage: Stage, gate: Gate) -> None:
    rng = random.Random(12)
    encoder = Encoder("orders", stage.ids["orders-value"])
    writer = Producer(stage.settings.kafka.client_config() | {"message.max.bytes": LARGE})
    keyless = [order(i, rng, dealer_id="nobody in the topic of dealers") for i in range(500, 540)]
    sent: dict[tuple[int, int], bytes] = {}

    def note(event: dict[str, object] | None) -> object:
        def delivered(error: object, message: object) -> None:
            assert error is None, error
            where = (message.partition(), message.offset())  # type: ignore[attr-defined]
            if event is None:
                sent[where] = message.value()  # type: ignore[attr-defined]
            else:
                stage.valid.append((event, *where))

        return delivered

    huge = b"\x00" + (stage.ids["orders-value"]).to_bytes(4, "big") + bytes(5_000_000)
    for event in keyless:
        writer.produce(stage.names["orders"], encoder.encode(event), on_delivery=note(event))
    writer.produce(stage.names["orders"], huge, on_delivery=note(None))
    assert writer.flush(60) == 0
    stage.settled()
    deadline = time.monotonic() + PATIENCE_S
    while not (letters := stage.read("orders.dlq")):
        assert time.monotonic() < deadline, stage.state()
        time.sleep(0.5)
    (letter,) = letters
    said = dict(letter.headers())
    ((where, value),) = sent.items()
    assert letter.value() == value
    assert (int(said["dlq_partition"]), int(said["dlq_offset"])) == where
    assert said["dlq_error"]
