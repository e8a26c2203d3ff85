"""Recommendations end to end: orders on real Kafka, the process, HTTP, both clients and the command."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import uuid

import pytest
from confluent_kafka import TopicPartition
from ranking_model import folder
from recommend_world import NOW_MS, dealer, line

from connectors.kafka import consumer, ensure_topics, producer, retrying
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.client import AsyncDealerIQ, DealerIQ, RequestError
from models.lifecycle_log import LifecycleLog
from schemas.codec import Encoder
from schemas.envelope import headers
from streams.recommend.ranker import MODEL
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

TOPICS = ("orders", "inventory", "dealers")


class World:
    """The view and the HTTP service of a project of its own, from the ends that the topics have now."""

    def __init__(self, stack, folder):
        self.stack, self.project = stack, f"rec{uuid.uuid4().hex[:8]}"
        ensure_topics(stack.kafka, [*TOPICS, *(f"{each}.dlq" for each in TOPICS)])
        ids = Registry(stack.registry).register_all(TOPICS)
        self.encoders = {name: Encoder(name, ids[f"{name}-value"]) for name in TOPICS}
        self.producer, self.redis = producer(stack.kafka), connect(stack.redis)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "DEALERIQ_DATA_DIR": str(folder), "DEALERIQ_KAFKA__BOOTSTRAP": stack.kafka.address,
            "DEALERIQ_REGISTRY__URL": stack.registry.url, "DEALERIQ_REDIS__URL": stack.redis.url,
            "DEALERIQ_FEATURES__PROJECT": self.project, "DEALERIQ_HTTP__PORT": str(self.port),
        }  # fmt: skip
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("DEALERIQ_")} | settings
        self.folder, self.running = folder, {}
        reader = consumer(stack.kafka, self.project)
        for name in TOPICS:  # what other tests left is none of this test's work
            for number in until(lambda name=name: reader.list_topics(name, timeout=30).topics[name].partitions):
                where = TopicPartition(name, number)
                end = retrying(lambda: reader.get_watermark_offsets(where, timeout=30), stack.kafka)[1]  # noqa: B023
                self.redis.hset(f"{self.project}:position:recommend-view", f"{name}:{number}", end)
        reader.close()

    def clear(self):
        """End what runs, and leave nothing of the project."""
        for name in list(self.running):
            self.end(name, signal.SIGKILL)
        for key in self.redis.scan_iter(f"{self.project}:*"):
            self.redis.delete(key)

    def begin(self, name):
        command = [sys.executable, "-m", "dealeriq.processes", name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, env=self.environment, stderr=log, stdout=log)

    def end(self, name, with_=signal.SIGTERM):
        process = self.running.pop(name)
        process.send_signal(with_)
        process.wait(60)

    def send(self, name, *records):
        for record in records:
            identity = record.get("event_id", record["dealer_id"])
            sent = headers(identity, name, "test", NOW_MS, record["dealer_id"])
            value = self.encoders[name].encode(record)
            self.producer.produce(name, value, key=record["dealer_id"].encode(), headers=sent)
        assert self.producer.flush(30) == 0

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "dealeriq", "recommend", *arguments, "--url", self.url],
            env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def world(stack, tmp_path):
    made = World(stack, tmp_path)
    yield made
    made.clear()


def products(client, who, **more):
    return [each.product_id for each in client.recommendations(who, **more).recommendations]


def test_orders_are_recommended_from_as_they_come_and_through_a_kill(world):
    mark = world.project
    lines = [
        line(f"{mark}-{i}", j, f"{mark}-d{i}", product, category=f"{mark}-c{j}")
        for i in range(3)
        for j, product in enumerate((f"{mark}-a", f"{mark}-b"))
    ]
    me = f"{mark}-me"
    world.begin("recommend-view")
    world.begin("http")
    with DealerIQ(world.url) as client:
        until(lambda: "http" in world.running and _answers(client))
        assert client.recommendations(me).recommendations == []
        world.send("dealers", dealer(me, "Reg ion"))
        world.send("orders", *lines, line(f"{mark}-m", 0, me, f"{mark}-a"))
        until(lambda: products(client, me) == [f"{mark}-b"])
        found = client.recommendations(me).recommendations[0]
        assert found.why.bought_with == [f"{mark}-a"]
        assert found.why.text.startswith(f"bought with {mark}-a; taken up by 3 dealers lately")

        async def asked():
            async with AsyncDealerIQ(world.url) as other:
                return await other.recommendations(me, limit=1, category=f"{mark}-c1")

        (same,) = asyncio.run(asked()).recommendations
        assert (same.product_id, same.score, same.why.bought_with) == (f"{mark}-b", found.score, [f"{mark}-a"])
        assert same.why.popular_in == f"category {mark}-c1"
        world.end("recommend-view", signal.SIGKILL)
        extra = [
            line(f"{mark}-x{i}", j, f"{mark}-d{i}", p)
            for i in range(3)
            for j, p in enumerate((f"{mark}-a", f"{mark}-z"))
        ]
        world.send("orders", *extra[:3], *lines)  # duplicates of what was counted
        world.begin("recommend-view")
        world.send("orders", *extra[3:])
        until(lambda: set(products(client, me)) == {f"{mark}-b", f"{mark}-z"})
        assert round(client.recommendations(me, category=f"{mark}-c1").recommendations[0].why.taken_up) == 3
        for wrong in ({"limit": 0}, {"limit": 101}):
            with pytest.raises(RequestError):
                client.recommendations(me, **wrong)
    told = world.command(me, "--json", "--limit", "1")
    assert told.returncode == 0
    assert json.loads(told.stdout)["recommendations"][0]["product_id"] in (f"{mark}-b", f"{mark}-z")
    stranger = world.command(f"{mark}-nobody")
    assert "has not ordered" in stranger.stderr
    assert stranger.stdout.count("popular in every region") >= 2
    world.end("http")
    gone = world.command(me)
    assert gone.returncode == 4
    assert "was not reached" in gone.stderr


def test_a_champion_ranks_while_it_is_asked_and_a_rollback_gives_the_earlier_scores(alone, tmp_path, request):
    """Versions are registered, promoted, broken and rolled back under requests: none fails, each is ranked."""
    world = World(alone, tmp_path)
    request.addfinalizer(world.clear)
    mark, me = world.project, f"{world.project}-me"
    # Of the products of others with mine, each was ordered more often than the one before.
    lines = [
        line(f"{mark}-{i}-{j}", k, f"{mark}-d{i}", product)
        for j in range(6)
        for i in range(j + 1)
        for k, product in enumerate((f"{mark}-mine", f"{mark}-p{j}"))
    ]
    few_first = [f"{mark}-p{j}" for j in range(6)]
    (first, most), (second, least) = folder(tmp_path), folder(tmp_path, most=False)
    (broken, its) = folder(tmp_path, most=False, version="20170714-broken")
    world.begin("recommend-view")
    world.begin("http")
    with DealerIQ(world.url) as client, LifecycleLog(alone.kafka, alone.registry) as log:
        until(lambda: _answers(client))
        world.send("orders", *lines, line(f"{mark}-m", 0, me, f"{mark}-mine"))
        until(lambda: len(products(client, me)) == 6)
        assert client.recommendations(me).model_version is None

        def promote(where, told, known=False):
            log.catch_up()
            for stage in () if known else ("registered",):
                log.write(
                    MODEL, told.version, stage, "a test", cause=uuid.uuid4().hex, reason="training",
                    artifact=str(where), sha256=told.sha256,
                )  # fmt: skip
            log.write(MODEL, told.version, "champion", "a test", cause=uuid.uuid4().hex, reason="gates")

        def served(version):
            """Answers until this version ranks; every one of them is whole."""

            def ranked():
                found = client.recommendations(me)
                assert len(found.recommendations) == 6
                return found if found.model_version == version else None

            return until(ranked)

        promote(first, most)
        by_most = served(most.version)
        assert [each.product_id for each in by_most.recommendations] == few_first[::-1]
        promote(second, least)
        by_least = served(least.version)
        assert [each.product_id for each in by_least.recommendations] == few_first
        assert by_least.recommendations[0].why.bought_with == [f"{mark}-mine"]
        (broken / "model.onnx").write_bytes(b"cut short")
        promote(broken, its)
        promote(first, most, known=True)  # the log has named another meanwhile: who was served went on
        again = served(most.version)
        assert again.recommendations == by_most.recommendations
        told = world.command(me, "--limit", "1")
        assert f"ranked by next_best_products {most.version}" in told.stderr


def _answers(client):
    try:
        return client.health().ready
    except Exception:
        return False
