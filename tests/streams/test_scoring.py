"""From changed features to an insight at a dealer's app: real Kafka, Redis, Flink, ONNX and HTTP."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from confluent_kafka import TopicPartition
from scoring_model import RULE, VIEW, folder

from connectors.kafka import consumer, ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.client import AsyncDealerIQ, DealerIQ
from dealeriq.http.app import Application
from dealeriq.http.insights import InsightSource
from dealeriq.http.settings import HttpSettings
from dealeriq.http.stored import StoredFeatures
from dealeriq.runtime.jars import cache_dir, ensure
from dealeriq.runtime.java import java
from dealeriq.scoring import keep_scoring
from dealeriq.settings import Settings
from features.plan import load
from models.lifecycle_log import LifecycleLog
from models.runtime import Session
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from schemas.ids import event_id
from schemas.validate import problems
from streams.flink.job import FlinkTarget, submit_insights
from streams.flink.rest import FlinkRest
from streams.insights.explain import explain, read_score
from streams.insights.store import InsightStore
from streams.views.feature_view import FeatureView
from streams.views.insight_view import InsightView
from streams.views.runner import ViewRunner

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

HOUR = 3_600_000
NOON = 1_500_000_000_000 // HOUR * HOUR
TOPIC = f"tiles.{VIEW}"


@dataclass
class World:
    """The scoring half of the system under a Feast project, dealers and a model of this test alone."""

    settings: Settings
    root: Path
    tag: str
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.plan = load(project=self.settings.features.project)
        self.view = self.plan.views[VIEW]
        self.registry = Registry(self.settings.registry)
        names = [TOPIC, "scores", "insights", "model.lifecycle"]
        tiles = [view.topic for view in self.plan.views.values()]
        ensure_topics(self.settings.kafka, ["insights.dlq", *names, *tiles])
        self.ids = self.registry.register_all(names)
        self.producer = producer(self.settings.kafka, linger_ms=0)
        self.redis = connect(self.settings.redis)
        self.model, self.dealer = f"busy_{self.tag}", f"dealer-{self.tag}"

    def run(self, what: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                what()
            except BaseException as error:
                self.failures.append(error)
                raise

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def keep_features(self) -> None:
        view = FeatureView(self.redis, self.plan, self.registry.schema)
        self.run(ViewRunner(self.settings.kafka, view, stop=self.stop, group=f"{self.tag}-features").run)

    def keep_insights(self) -> None:
        store = InsightStore(self.redis, self.plan.project, keep=100, keep_days=1)
        view = InsightView(store, self.registry.schema)
        self.run(ViewRunner(self.settings.kafka, view, stop=self.stop, group=f"{self.tag}-insights").run)

    def order(self, dealer: str, category: str, amount: float, at: int) -> None:
        """An order, straight to its finest tile: what the tiles job would send."""
        event = {
            "event_id": f"o{next(self._count)}", "event_time": at, "amount": amount, "quantity": 1,
        }  # fmt: skip
        hop = at // self.view.hop_ms * self.view.hop_ms
        told = self.orders.setdefault((dealer, category, hop), [])
        told.append(event)
        self.tile(dealer, category, hop, told)

    orders: dict[tuple[str, str, int], list[dict[str, Any]]] = field(default_factory=dict)

    def tile(self, dealer: str, category: str, hop: int, events: list[dict[str, Any]]) -> None:
        grain, newest = self.view.hop_ms // 1000, max(e["event_time"] for e in events)
        amounts, quantities = [e["amount"] for e in events], [e["quantity"] for e in events]
        record = {
            "dealer_id": dealer, "category": category, "grain": grain, "hop": hop, "n": len(events),
            "amount_sum": sum(amounts), "amount_max": max(amounts), "quantity_sum": float(sum(quantities)),
            "max_event_time": newest, "max_ingest_time": None, "positions": [next(self._count)],
        }  # fmt: skip
        key = {"dealer_id": dealer, "category": category, "grain": grain, "hop": hop}
        value = Encoder(TOPIC, self.ids[f"{TOPIC}-value"]).encode(record)
        self.producer.produce(
            TOPIC, value, key=Encoder(TOPIC, self.ids[f"{TOPIC}-key"], key=True).encode(key),
            headers=headers(event_id("t", dealer, hop, len(events)), TOPIC, "test", newest, dealer),
            partition=hash((dealer, category)) % 4,
        )  # fmt: skip
        self.producer.poll(0)

    def promote(self, where: Path, version: str, stage: str = "champion", **more: Any) -> int:
        with LifecycleLog(self.settings.kafka, self.settings.registry) as log:
            log.catch_up()
            if version not in log.registry.state(self.model).versions:
                log.write(
                    self.model, version, "registered", "a test", cause=uuid.uuid4().hex, reason="training",
                    artifact=str(where), **more,
                )  # fmt: skip
            return log.write(self.model, version, stage, "a test", cause=uuid.uuid4().hex, reason="gates").at

    def scores(self) -> list[tuple[Any, dict[str, Any]]]:
        """Every score of this test's model and dealers, in the order of the log of each partition."""
        decoder = Decoder.of_topic("scores", self.registry.schema)
        reader, found = consumer(self.settings.kafka, uuid.uuid4().hex, enable_partition_eof=True), []
        try:
            reader.assign([TopicPartition("scores", n, 0) for n in range(4)])
            left = set(range(4))
            while left:
                for message in reader.consume(1000, 0.2):
                    if message.error() is not None:
                        left.discard(message.partition())
                    else:
                        record = decoder.decode(message.value())
                        # Other tests' tiles lie in the same topic, and this test's model scores them, too.
                        if record["model"] == self.model and record["dealer_id"].startswith(self.dealer):
                            found.append((message, record))
            return found
        finally:
            reader.close()

    def until(self, done: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := done()):
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, f"{what} did not come in {timeout_s} s"
            time.sleep(0.1)
        return found

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        listener = socket.create_server(("127.0.0.1", 0))
        source = StoredFeatures(self.settings.redis.address, self.plan)
        servers: list[uvicorn.Server] = []
        insights = InsightSource(source.redis, self.plan.project)
        application = Application(
            HttpSettings(), source, insights=insights, stopping=lambda: servers[0].should_exit
        )
        servers.append(uvicorn.Server(uvicorn.Config(application, access_log=False, log_level="warning")))
        thread = threading.Thread(target=servers[0].run, args=([listener],), daemon=True)
        thread.start()
        self.until(lambda: servers[0].started, "the service")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            servers[0].should_exit = True
            thread.join(20)


@pytest.fixture
def world(alone: Settings, tmp_path: Path) -> Iterator[World]:
    tag = uuid.uuid4().hex[:8]
    settings = alone.model_copy(deep=True)
    settings.features.project = f"p{tag}"
    settings.scoring.follow_s = 0.1
    made = World(settings, tmp_path, tag)
    yield made
    made.stop.set()
    time.sleep(0.5)
    assert not made.failures


def target(flink: Settings, folder: Path) -> FlinkTarget:
    assert flink.flink.url is not None
    assert flink.flink.lib_dir is not None
    return FlinkTarget(
        url=flink.flink.url, lib_dir=Path(flink.flink.lib_dir), java=java(), compiler=ensure("tools")[0],
        cache=cache_dir() / "flink", checkpoint_dir=(folder / "checkpoints").as_uri(),
        state_dir=folder / "state",
    )  # fmt: skip


def said(world: World, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "dealeriq", *arguments],
        env={**os.environ, **world.settings.environment()}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_from_a_changed_feature_to_an_insight_in_an_app(flink: Settings, world: World) -> None:
    where, told = folder(world.root, world.model)
    place = target(flink, world.root)
    handle = submit_insights(
        place, schema_ids=world.ids, kafka=world.settings.kafka.flink_properties(),
        registry=world.settings.registry.flink_properties(), parallelism=1, checkpoint_ms=500,
        prefix=f"{world.tag}-",
    )  # fmt: skip
    world.keep_features()
    world.keep_insights()
    decided = world.promote(where, told.version, sha256=told.sha256)
    world.run(lambda: keep_scoring(world.settings, world.stop))
    for day in range(20):
        world.order(world.dealer, "GROCERY", 5.0, NOON + day * 24 * HOUR)
    world.producer.flush(30)
    first = world.until(world.scores, "a score")
    assert all(not problems("scores", record) for _, record in first)
    newest = max((record for _, record in first), key=lambda record: record["event_time"])
    assert newest["event_time"] == NOON + 19 * 24 * HOUR
    assert (newest["subject_id"], newest["decided_at"]) == (f"{world.dealer}/GROCERY", decided)
    with world.serving() as url, DealerIQ(url) as client:
        assert client.insight_page(world.dealer).insights == []
        async with AsyncDealerIQ(url) as app:
            stream = app.insights(world.dealer, since="-1")
            world.order(world.dealer, "GROCERY", 900.0, NOON + 20 * 24 * HOUR)
            world.producer.flush(30)
            insight = await anext(stream)
        page = client.insight_page(world.dealer)
        assert [each.id for each in page.insights] == [insight.id]
        assert not page.more
        assert (insight.rule, insight.severity, insight.dealer_id) == ("busy", "warning", world.dealer)
        assert insight.value > RULE.threshold
        assert insight.reasons[0].input == "week"
        assert insight.reasons[0].value == pytest.approx(900 + 6 * 5)
        assert "week 930 (usually 60)" in insight.text
        # Back below, and up again: a second one; the stream resumes after the first.
        resumed = client.insights(world.dealer, since=insight.cursor)
        for day, amount in ((40, 5.0), (60, 800.0)):
            world.order(world.dealer, "GROCERY", amount, NOON + day * 24 * HOUR)
            world.producer.flush(30)
            at = NOON + day * 24 * HOUR
            world.until(lambda at=at: [r for _, r in world.scores() if r["event_time"] == at], "a score")
        second = next(resumed)
        assert second.id != insight.id
        assert [each.id for each in client.insight_page(world.dealer).insights] == [second.id, insight.id]
        assert [i.id for i in client.insight_page(world.dealer, since=insight.cursor).insights] == [second.id]
        older = client.insight_page(world.dealer, before=second.cursor, limit=1)
        assert [each.id for each in older.insights] == [insight.id]
    # The score behind it repeats to the bit from what it recorded, through the recorded version.
    held = InsightStore(world.redis, world.plan.project, keep=100, keep_days=1).find(insight.id)
    assert held is not None
    score = read_score(world.settings.kafka, world.registry.schema, json.loads(held))
    found = explain(Session(where), score)
    assert found.same
    assert found.outputs == score["outputs"]
    assert found.inputs[0]["input"] == "week"
    nudged = score["outputs"] | {"low": np.nextafter(np.float32(score["outputs"]["low"]), np.float32(1e9))}
    assert not explain(Session(where), score | {"outputs": nudged}).same
    told = said(world, "insights", "explain", insight.id, "--days", "2", "--json")
    assert (told["same"], told["artifact"]) == (True, str(where))
    assert [row["at"] for row in told["history"]] == [
        score["event_time"] - day * 24 * HOUR for day in (2, 1, 0)
    ]
    first = said(world, "insights", "tail", "--all", "--dealer", world.dealer, "--limit", "1", "--json")
    assert first["event_id"] == insight.id
    FlinkRest(place.url).cancel(handle.job_id)


def test_a_swap_under_load_leaves_nothing_out_and_repeats_nothing(world: World) -> None:
    versions = [folder(world.root, world.model, seed=seed, scale=1 + seed / 10) for seed in (1, 2, 3)]
    world.keep_features()
    decided = {versions[0][1].version: world.promote(versions[0][0], versions[0][1].version)}
    world.run(lambda: keep_scoring(world.settings, world.stop))
    dealers = [f"{world.dealer}-{n}" for n in range(20)]
    subjects = [f"{dealer}/FUEL" for dealer in dealers]
    expected = set()

    def load(hours: range) -> None:
        for hour in hours:
            for dealer in dealers:
                world.order(dealer, "FUEL", 10.0, NOON + hour * HOUR)
                expected.add((f"{dealer}/FUEL", NOON + hour * HOUR))
            world.producer.flush(30)
            # A subject is scored at its newest event: the next hour goes out when this one is seen.
            at = NOON + hour * HOUR
            world.until(
                lambda at=at: (
                    world.redis.hmget(f"{world.plan.project}:scored:{world.model}", subjects)
                    == [str(at).encode()] * len(subjects)
                ),
                "every subject's score",
            )

    load(range(3))
    loading = world.run(lambda: load(range(3, 30)))
    decided[versions[1][1].version] = world.promote(versions[1][0], versions[1][1].version)
    broken = world.root / "broken"
    broken.mkdir()
    world.promote(broken, "broken")
    time.sleep(0.5)  # long enough to be looked at: the last champion goes on
    decided[versions[2][1].version] = world.promote(versions[2][0], versions[2][1].version)
    challenger = versions[0][1].version
    shadowed = world.promote(versions[0][0], challenger, "challenger")
    loading.join(180)
    load(range(30, 33))
    found = [record for _, record in world.scores()]
    order = [each[1].version for each in versions]
    real = sorted((r for r in found if not r["shadow"]), key=lambda r: order.index(r["model_version"]))
    assert {(r["subject_id"], r["event_time"]) for r in real} == expected
    # A new champion scores everybody's newest moment again, and nobody scores one twice.
    assert set(Counter((r["subject_id"], r["event_time"], r["model_version"]) for r in real).values()) == {1}
    assert {r["model_version"] for r in real} == set(decided)
    for record in found:
        wanted = shadowed if record["shadow"] else decided[record["model_version"]]
        assert record["decided_at"] == wanted
    shadows = [r for r in found if r["shadow"]]
    assert {r["model_version"] for r in shadows} == {challenger}
    assert all(r["readings"] == [] for r in shadows)
    last = {(r["subject_id"], r["event_time"]): r for r in real}
    assert all(r["features"] == last[r["subject_id"], r["event_time"]]["features"] for r in shadows)
    assert len({r["event_id"] for r in found}) == len(found)
    # Each subject was scored by one version after the other, never going back.
    for dealer in dealers:
        own = sorted((r for r in real if r["dealer_id"] == dealer), key=lambda r: r["event_time"])
        places = [order.index(r["model_version"]) for r in own]
        assert places == sorted(places)
