"""The process that scores leads, on real Kafka, through kill -9: byte for byte the log in an empty store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from lead_world import lead_model

from connectors.kafka import consumer, ensure_topics, producer, retrying
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from models.lifecycle_log import LifecycleLog
from models.runtime import Session
from schemas.codec import Decoder, Encoder
from streams.insights.explain import explain
from streams.leads.store import LearnerStore
from streams.leads.weights import Weights
from streams.verify.broker import Broker
from streams.verify.leads import verify_leads
from streams.views.lead_learner import LeadLearner
from tests.models.lead_talk import talk
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

TOPICS = ("chats.enriched", "feedback", "scores", "leads.labelled")


class World:
    """The process of a project of its own, from the ends that the topics have now."""

    def __init__(self, stack: Settings, folder: Path) -> None:
        self.stack, self.folder, self.project = stack, folder, f"lead{uuid.uuid4().hex[:8]}"
        ensure_topics(stack.kafka, [*TOPICS, *(f"{each}.dlq" for each in TOPICS)])
        self.registry = Registry(stack.registry)
        ids = self.registry.register_all(TOPICS)
        self.encoders = {name: Encoder(name, ids[f"{name}-value"]) for name in TOPICS}
        self.producer, self.redis = producer(stack.kafka), connect(stack.redis)
        self.reader: Any = consumer(stack.kafka, self.project, isolation_level="read_committed")
        self.began = {name: self.ends(name) for name in TOPICS}
        for view, names in (("lead-view", TOPICS[:2]), ("lead-learner", ("leads.labelled",))):
            for name in names:
                for number, end in self.began[name].items():
                    self.redis.hset(f"{self.project}:position:{view}", f"{name}:{number}", end)
        self.variables = os.environ | stack.environment() | {
            "DEALERIQ_DATA_DIR": str(folder), "DEALERIQ_FEATURES__PROJECT": self.project,
            "DEALERIQ_SCORING__FOLLOW_S": "0.1", "DEALERIQ_LEADS__BATCH_RECORDS": "20",
            "DEALERIQ_METRICS_PORT": "0",
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def ends(self, name: str) -> dict[int, int]:
        numbers = until(lambda: self.reader.list_topics(name, timeout=30).topics[name].partitions)
        return {
            number: retrying(
                lambda number=number: self.reader.get_watermark_offsets(
                    TopicPartition(name, number), timeout=30
                ),
                self.stack.kafka,
            )[1]
            for number in numbers
        }

    def start(self) -> None:
        with (self.folder / "lead-view.log").open("ab") as out:
            command = [sys.executable, "-m", "dealeriq.processes", "lead-view"]
            self.process = subprocess.Popen(command, env=self.variables, stdout=out, stderr=out)

    def stop(self, how: int) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def send(self, name: str, records: list[dict[str, Any]]) -> None:
        for each in records:
            self.producer.produce(name, self.encoders[name].encode(each), key=each["dealer_id"].encode())
        assert self.producer.flush(30) == 0

    def messages(self, name: str) -> list[Any]:
        """What was written to a topic since the test began."""
        ends = self.ends(name)
        self.reader.assign([TopicPartition(name, at, first) for at, first in self.began[name].items()])
        wanted = sum(ends.values()) - sum(self.began[name].values())
        found: list[Any] = []
        deadline = time.monotonic() + 60
        while len(found) < wanted and time.monotonic() < deadline:
            found += [each for each in self.reader.consume(1_000, 0.2) if each.error() is None]
        return found

    def records(self, name: str, mark: str) -> list[dict[str, Any]]:
        decode = Decoder.of_topic(name, self.registry.schema).decode
        return [
            each for each in (decode(message.value()) for message in self.messages(name))
            if each["dealer_id"].startswith(mark)
        ]  # fmt: skip

    def learnt(self, project: str) -> dict[str, Any]:
        held: dict[str, Any] = {
            name: self.redis.hgetall(f"{project}:{name}")
            for name in ("lead-model", "lead-said", "position:lead-learner")
        }
        return held | {"lead-answers": self.redis.lrange(f"{project}:lead-answers", 0, -1)}


@pytest.fixture
def world(stack: Settings, tmp_path: Path) -> Any:
    made = World(stack, tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(60)
    made.reader.close()
    for key in made.redis.scan_iter(f"{made.project}*"):
        made.redis.delete(key)


def test_leads_are_scored_and_learnt_from_through_kills(world: World) -> None:
    mark, model = world.project, f"m{world.project}"
    folder, told = lead_model(world.folder, model)
    with LifecycleLog(world.stack.kafka, world.stack.registry) as log:
        log.write(model, told.version, "registered", "x", cause="a", reason="training", artifact=str(folder))
        log.write(model, told.version, "champion", "x", cause="b", reason="person")
    messages, outcomes = talk(120, mark=mark)
    world.start()
    # Some outcomes come before their messages, and some after a kill.
    parts = ((messages[:120], outcomes[60:]), (messages[120:], outcomes[:60]))
    for some, said in parts:
        world.send("feedback", said)
        world.send("chats.enriched", some)
        before = len(world.redis.keys(f"{mark}:lead-message:*"))
        until(lambda before=before: len(world.redis.keys(f"{mark}:lead-message:*")) > before)
        world.stop(signal.SIGKILL)
        world.start()

    def learnt_all() -> bool:
        return int(world.redis.hlen(f"{mark}:lead-said")) == len(outcomes)

    until(learnt_all)
    until(lambda: len(world.redis.keys(f"{mark}:lead-message:*")) == len(messages))
    assert world.stop(signal.SIGTERM) == 0
    scores = [each for each in world.records("scores", mark) if each["model"] == model]
    assert {each["cause_id"] for each in scores} == {each["event_id"] for each in messages}
    session = Session(folder)
    assert all(explain(session, each).same for each in scores)
    assert {each["model_version"] for each in scores} == {told.version}
    lessons = world.records("leads.labelled", mark)
    assert {each["cause_id"] for each in lessons} == {each["event_id"] for each in outcomes}

    again = f"{mark}again"
    learner = LeadLearner(LearnerStore(connect(world.stack.redis), again), world.registry.schema, Weights())
    learner.positions()
    learner.apply(world.messages("leads.labelled"))
    assert world.learnt(again) == world.learnt(mark)

    # All that the topic holds, of other tests too, is what verify works out; a weight that is wrong is named.
    world.began["leads.labelled"] = {0: 0}
    whole = f"{mark}whole"
    learner = LeadLearner(LearnerStore(connect(world.stack.redis), whole), world.registry.schema, Weights())
    learner.positions()
    learner.apply(world.messages("leads.labelled"))
    told = world.redis, whole, Broker(world.stack.kafka), world.registry, lambda: None
    check = verify_leads(*told)
    assert check.lessons >= len(outcomes)
    assert check.findings == []
    state = json.loads(world.redis.hget(f"{whole}:lead-model", "learner"))
    state["weights"]["messages"] += 0.01
    world.redis.hset(f"{whole}:lead-model", "learner", json.dumps(state))
    (wrong,) = verify_leads(*told).findings
    assert (wrong.kind, wrong.entity) == ("learner", ("messages",))
