"""The insight job on real Kafka and Flink: readers of committed records see each insight once."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from rule_model import Said, insights

from connectors.kafka import consumer, producer
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.runtime.jars import cache_dir, ensure
from dealeriq.runtime.java import java
from dealeriq.settings import Settings
from schemas.codec import Decoder, Encoder
from schemas.envelope import parse_headers
from schemas.validate import problems
from streams.flink.job import FlinkTarget, JobHandle, status, submit_insights
from streams.flink.rest import FlinkRest

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

PARTITIONS = 4
NOON = 1_500_000_000_000
RULES = {
    "high": {"above": True, "threshold": 10.0, "hysteresis": 2.0, "cool_down": 100},
    "low": {"above": False, "threshold": 5.0, "hysteresis": 1.0, "cool_down": 0},
}


def score(
    number: int, dealer: str, subject: str, time_ms: int, value: float | None, **more: Any
) -> dict[str, Any]:
    identity = f"s{number}"
    return {
        "event_id": identity, "dealer_id": dealer, "model": "m", "model_version": "v1", "subject_type": "thing",
        "subject_id": subject, "score": value or 0.0, "features": {"a": value}, "latency_ms": 0.5,
        "shadow": False, "outputs": {"o": value or 0.0}, "entity": {"dealer_id": dealer}, "decided_at": 3,
        "readings": [
            {
                "rule": name, "rule_version": "1", "insight_id": f"{name}-{identity}", "severity": "notice",
                "above": rule["above"], "value": value, "threshold": rule["threshold"],
                "hysteresis": rule["hysteresis"], "cool_down_ms": rule["cool_down"],
                "text": f"{subject}: {value}",
                "reasons": [{"input": "a", "value": None, "usual": 1.0, "by": 2.0}],
            }
            for name, rule in RULES.items()
        ],
        "cause_id": f"c{number}", "event_time": time_ms,
    }  # fmt: skip


@dataclass
class Job:
    """The job on topics of its own, and what was sent to it."""

    settings: Settings
    target: FlinkTarget
    names: dict[str, str]
    ids: dict[str, int]
    prefix: str
    sent: list[dict[str, Any]] = field(default_factory=list)
    junk: int = 0

    def submit(self) -> JobHandle:
        self.handle = submit_insights(
            self.target, schema_ids=self.ids, kafka=self.settings.kafka.flink_properties(),
            registry={"url": self.settings.registry.address}, parallelism=2, checkpoint_ms=300,
            names=self.names, prefix=self.prefix,
        )  # fmt: skip
        return self.handle

    def send(self, scores: list[dict[str, Any]], junk: list[bytes] = []) -> None:  # noqa: B006
        encoder, out = Encoder("scores", self.ids["scores-value"]), producer(self.settings.kafka)
        for each in scores:
            assert not problems("scores", each)
            out.produce(self.names["scores"], encoder.encode(each), key=each["dealer_id"].encode())
        for value in junk:
            out.produce(self.names["scores"], value, key=b"d0")
        assert out.flush(30) == 0
        self.sent += scores
        self.junk += len(junk)

    def expected(self) -> Counter[tuple[str, str]]:
        """(rule, score) of every insight, recomputed."""
        readings: defaultdict[tuple[str, str], list[Said]] = defaultdict(list)
        for each in self.sent:
            if not each["shadow"]:
                for reading in each["readings"]:
                    said = Said(
                        each["event_id"], each["event_time"], reading["value"], **RULES[reading["rule"]]
                    )
                    readings[reading["rule"], each["subject_id"]].append(said)
        return Counter((rule, told) for (rule, _), said in readings.items() for told in insights(said))

    def read(self, name: str) -> list[Any]:
        """Every committed record."""
        reader, found = consumer(self.settings.kafka, uuid.uuid4().hex, enable_partition_eof=True), []
        try:
            places = [TopicPartition(self.names[name], n, 0) for n in range(PARTITIONS)]
            ends = {each.partition: reader.get_watermark_offsets(each, timeout=20)[1] for each in places}
            reader.assign(places)
            left = {n for n, end in ends.items() if end}
            while left:
                for message in reader.consume(1000, 0.2):
                    if message.error() is not None:
                        left.discard(message.partition())
                    else:
                        found.append(message)
            return found
        finally:
            reader.close()

    def told(self) -> list[dict[str, Any]]:
        decoder = Decoder.of_topic("insights", Registry(self.settings.registry).schema)
        return [decoder.decode(each.value()) for each in self.read("insights")]

    def settled(self, timeout_s: float = 150) -> list[dict[str, Any]]:
        """Wait until the insights are what the recomputation says; never more of any."""
        wanted, deadline = self.expected(), time.monotonic() + timeout_s
        while True:
            found = self.told()
            seen = Counter((each["rule"], each["cause_id"]) for each in found)
            assert max(seen.values(), default=1) == 1, "an insight came twice"
            assert seen.keys() <= wanted.keys(), seen.keys() - wanted.keys()
            if seen == wanted:
                return found
            if time.monotonic() > deadline:
                pytest.fail(f"{len(wanted - seen)} missing; job {status(self.target, self.handle)}")
            time.sleep(0.3)


@pytest.fixture(scope="module")
def job(flink: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    tag = uuid.uuid4().hex[:8]
    names = {name: f"{tag}.{name}" for name in ("scores", "scores.dlq", "insights")}
    admin = AdminClient(flink.kafka.client_config())
    for created in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names.values()]).values():
        created.result(20)
    assert flink.flink.url is not None
    assert flink.flink.lib_dir is not None
    folder = tmp_path_factory.mktemp("insights")
    target = FlinkTarget(
        url=flink.flink.url, lib_dir=Path(flink.flink.lib_dir), java=java(), compiler=ensure("tools")[0],
        cache=cache_dir() / "flink", checkpoint_dir=(folder / "checkpoints").as_uri(),
        state_dir=folder / "state",
    )  # fmt: skip
    ids = Registry(flink.registry).register_all(["scores", "insights"])
    running = Job(flink, target, names, ids, f"{tag}-")
    running.submit()
    yield running
    FlinkRest(target.url).cancel(running.handle.job_id)


def scores_at_random(rng: random.Random, first: int, count: int) -> list[dict[str, Any]]:
    """Values around both thresholds, times that go back and forth, ids that come again, missing values."""
    found: list[dict[str, Any]] = []
    for i in range(count):
        if found and rng.random() < 0.1:
            found.append(rng.choice(found[-20:]))
            continue
        dealer = f"d{rng.randrange(6)}"
        value = (
            None if rng.random() < 0.05 else rng.choice([rng.uniform(0, 15), 4.0, 5.0, 6.0, 8.0, 10.0, 10.01])
        )
        at = NOON + (first + i) * 7 - rng.randrange(60)
        found.append(score(first + i, dealer, f"{dealer}/{rng.randrange(3)}", at, value))
    return found


def test_rules_speak_as_their_words_say_and_what_is_bad_leaves(job: Job) -> None:
    rng = random.Random(11)
    scores = scores_at_random(rng, 0, 3_000)
    for each in rng.sample(scores, 150):
        scores.append(each | {"event_id": f"x{each['event_id']}", "shadow": True, "event_time": NOON + 10**9})
    good = Encoder("scores", job.ids["scores-value"]).encode(scores[0])
    job.send(scores, [b"junk", good[:-4]])
    found = job.settled()
    assert {each["rule"] for each in found} == set(RULES)
    for each in found:
        assert not problems("insights", each)
    one = next(each for each in found if each["rule"] == "high")
    topic, partition, offset = one["score_position"].split(":")
    cause = next(m for m in job.read("scores") if (m.partition(), m.offset()) == (int(partition), int(offset)))
    assert topic == job.names["scores"]
    read = Decoder.of_topic("scores", Registry(job.settings.registry).schema).decode(cause.value())
    assert read["event_id"] == one["cause_id"]
    assert one["event_id"] == f"high-{one['cause_id']}"
    assert one["reasons"] == [{"input": "a", "value": None, "usual": 1.0, "by": 2.0}]
    for message in job.read("insights")[:20]:
        envelope = parse_headers(message.headers())
        record = next(each for each in found if each["event_id"] == envelope.event_id)
        assert (envelope.time_ms, envelope.subject) == (record["event_time"], record["subject_id"])
        assert message.key() == record["dealer_id"].encode()
    assert len(job.read("scores.dlq")) >= 2


def test_a_killed_taskmanager_loses_and_repeats_no_insight(job: Job, supervisor: Supervisor) -> None:
    rng = random.Random(5)
    for round_ in range(6):
        job.send(scores_at_random(rng, 10_000 + round_ * 500, 400))
        if round_ == 2:
            pid = next(each.pid for each in supervisor.status() if each.name == "flink-taskmanager")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)  # several checkpoints, with transactions open around the kill
    job.settled(240)
