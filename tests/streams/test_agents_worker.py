"""The worker on a stage that misbehaves, with real Kafka and registry."""

import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field

import pytest
from confluent_kafka import TopicPartition

from connectors.kafka import consumer, ensure_topics, producer
from connectors.redis import RedisClusterError
from connectors.registry import Registry
from connectors.settings import RegistrySettings
from schemas.codec import Encoder
from streams.agents.chats import ChatStage
from streams.agents.settings import AgentSettings
from streams.agents.stage import Derived, MapStage, Sorted
from streams.agents.worker import BatchWorker, StoppedError
from streams.labels.label import label_of
from streams.metrics import RECORDS, StageMeters

QUICK = AgentSettings(retry_first_s=0.05, retry_most_s=0.1)


@dataclass
class Sent:
    """A record as the consumer hands it over."""

    value: bytes | None
    key: bytes | None
    offset: int = 0
    topic: str = "feedback"
    partition: int = 1
    timestamp: int = field(default_factory=lambda: int(time.time() * 1000))
    headers: tuple = ()


class Picky(MapStage):
    """Fails on batches that hold a bad event, and is down as often as it is told to be."""

    name, source, target = "picky", "feedback", "labels"
    retried = (ConnectionError,)

    def __init__(self, down=0):
        self.down = down
        self.calls = []

    def handle(self, records):
        self.calls.append(len(records))
        if self.down:
            self.down -= 1
            raise ConnectionError("not there")
        if any(each["subject_id"] == "bad" for each in records):
            raise ZeroDivisionError
        return [Derived(each["dealer_id"], label_of(each, None), each["subject_id"]) for each in records]


@pytest.fixture
def world(stack):
    ensure_topics(stack.kafka, ["feedback", "feedback.dlq", "labels"])
    return World(stack)


class World:
    def __init__(self, stack):
        self.stack = stack
        self.dealer = f"worker-{uuid.uuid4().hex[:8]}"
        self.registry = Registry(stack.registry)
        self.encode = Encoder("feedback", self.registry.register_all(["feedback"])["feedback-value"]).encode

    def worker(self, stage, registry=None):
        name = f"{stage.name}-{self.dealer}"
        return BatchWorker(
            stage, registry or self.registry, producer(self.stack.kafka), QUICK, StageMeters(name)
        )

    def sent(self, number, subject="s", **more):
        record = self.record(number, subject, **more)
        return Sent(self.encode(record), self.dealer.encode(), number, headers=(("mine", b"kept"),))

    def record(self, number, subject, **more):
        return {
            "event_id": f"{self.dealer}-{number}",
            "dealer_id": self.dealer,
            "subject_type": "order",
            "subject_id": subject,
            "kind": "rating",
            "value": 4.0,
            "comment": None,
            "source": "test",
            "event_time": 1_500_000_000_000,
        } | more

    def keyed(self, subject, number):
        """A record whose key is its own subject's."""
        sent = self.sent(number, subject)
        sent.key = f"{self.dealer}-{subject}".encode()
        return sent

    def counts(self, stage):
        name = f"{stage.name}-{self.dealer}"
        return {
            each.labels["outcome"]: each.value
            for family in RECORDS.collect()
            for each in family.samples
            if each.labels["stage"] == name and each.name.endswith("_total")
        }

    def read(self, topic):
        reading = consumer(self.stack.kafka, f"test-{uuid.uuid4().hex}")
        found = []
        try:
            for partition in reading.list_topics(topic, timeout=10).topics[topic].partitions:
                place = TopicPartition(topic, partition, 0)
                _, end = reading.get_watermark_offsets(place, timeout=10)
                reading.assign([place])
                while reading.position([place])[0].offset < end and end:
                    for each in reading.consume(500, 0.2):
                        if each.key() == self.dealer.encode():
                            found.append(each)
        finally:
            reading.close()
        return found


@pytest.mark.services
def test_one_bad_event_takes_no_other_along(world):
    stage = Picky()
    batch = [world.sent(0), world.sent(1, "bad"), Sent(None, b"k", 2), world.sent(3), world.sent(4)]
    world.worker(stage).process(batch)
    assert stage.calls == [4, 1, 1, 1, 1]
    assert len(world.read("labels")) == 3
    (dead,) = world.read("feedback.dlq")
    assert dead.value() == batch[1].value
    said = dict(dead.headers())
    assert (said["dlq_partition"], said["dlq_offset"], said["mine"]) == (b"1", b"1", b"kept")
    assert said["dlq_error"] == b"ZeroDivisionError"
    assert world.counts(stage) == {"produced": 3, "dead_letter": 1, "tombstone": 1}


@pytest.mark.services
def test_a_service_that_is_down_is_no_dead_letter(world):
    stage = Picky(down=3)
    world.worker(stage).process([world.sent(0), world.sent(1)])
    assert stage.calls == [2, 2, 2, 2]
    assert len(world.read("labels")) == 2
    assert world.read("feedback.dlq") == []


@pytest.mark.services
def test_a_wrong_setting_makes_no_dead_letters(world):
    class Misled(Picky):
        def handle(self, records):
            raise RedisClusterError("Redis runs in cluster mode")

    with pytest.raises(RedisClusterError):
        world.worker(Misled()).process([world.sent(0), world.sent(1)])
    assert world.read("labels") == world.read("feedback.dlq") == []


@pytest.mark.services
def test_a_derived_event_that_its_topic_would_not_take_is_a_dead_letter(world):
    class Swollen(Picky):
        def handle(self, records):
            return [
                Derived(each.key, each.record | {"source": "x" * 1_100_000}, each.subject)
                for each in super().handle(records)
            ]

    stage = Swollen()
    world.worker(stage).process([world.sent(0)])
    assert world.read("labels") == []
    assert b"too large" in dict(world.read("feedback.dlq")[0].headers())["dlq_error"]
    assert world.counts(stage) == {"dead_letter": 1}


@pytest.mark.services
def test_stopping_while_the_registry_is_down_ends_without_a_verdict(world):
    nowhere = Registry(RegistrySettings(url="http://127.0.0.1:9", retry_s=0))
    worker = world.worker(Picky(), nowhere)
    threading.Timer(0.5, worker.stop).start()
    with pytest.raises(StoppedError, match="stops while a service is down"):
        worker.process([world.sent(0)])
    assert world.read("labels") == world.read("feedback.dlq") == []


def test_the_same_chat_read_twice_gives_the_same_event():
    from models.text import packaged_encoder
    from streams.agents.reading import Reader

    chat = {
        "event_id": "e1",
        "conversation_id": "c",
        "dealer_id": "d",
        "customer_id": None,
        "sender": "customer",
        "text": "Where is it?",
        "language": "en",
        "event_time": 1_500_000_000_000,
    }
    stage = ChatStage(Reader(packaged_encoder()))
    alone, again = stage.handle([chat]), stage.handle([chat | {"event_id": "e2"}, chat])
    assert alone[0].record["event_id"] == again[1].record["event_id"] != again[0].record["event_id"]
    assert stage.handle([]) == []


def test_an_agent_loads_no_training_package():
    code = (
        "import sys, streams.agents.process, streams.agents.app as a, streams.agents.chats;"
        "from models.text import packaged_encoder; packaged_encoder();"
        "print([m for m in ('torch','transformers','feast','mlflow','pandas','pyflink') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


class Slow(Picky):
    """Notes what it is asked for and told; `after` waits until it is let go."""

    name, overlaps, most_bytes = "slow", True, 1

    def __init__(self):
        super().__init__()
        self.notes, self.go = [], threading.Event()

    def handle(self, records):
        self.notes.append(("derived", records[0]["subject_id"]))
        if len(self.notes) > 1:
            self.go.set()
        return super().handle(records)

    def after(self, events, outcomes):
        assert self.go.wait(20)
        self.notes.append(("after", events[0].record["subject_id"]))


@pytest.mark.services
def test_a_part_is_derived_while_the_one_before_is_delivered(world):
    stage = Slow()
    world.worker(stage).process([world.keyed("a", 1), world.keyed("b", 2)])
    # The first is waited for at the end of `process`, and only the second one's derivation lets it go.
    assert stage.notes == [("derived", "a"), ("derived", "b"), ("after", "a"), ("after", "b")]


@pytest.mark.services
def test_two_parts_are_derived_at_once_and_delivered_in_their_order(world):
    class Together(Slow):
        name, at_once = "together", 2

        def __init__(self):
            super().__init__()
            self.met = threading.Barrier(2)

        def handle(self, records):
            subject = records[0]["subject_id"]
            self.met.wait(20)
            if subject in "ac":  # the second of a pair is through before the first
                time.sleep(0.2)
            return Picky.handle(self, records)

        def after(self, events, outcomes):
            self.notes.append(events[0].record["subject_id"])

    stage = Together()
    world.worker(stage).process([world.keyed(name, at) for at, name in enumerate("abcd")])
    assert stage.notes == list("abcd")


@pytest.mark.services
def test_a_part_about_the_same_waits_for_the_one_before(world):
    stage = Slow()
    stage.go.set()
    world.worker(stage).process([world.keyed("a", 1), world.keyed("a", 2), world.keyed("b", 3)])
    first, then, *_ = stage.notes
    assert (first, then) == (("derived", "a"), ("after", "a"))
    assert sorted(stage.notes[2:]) == [("after", "a"), ("after", "b"), ("derived", "a"), ("derived", "b")]


@pytest.mark.services
def test_what_says_nothing_new_waits_for_no_part_that_is_derived(world):
    class Known:
        """Knows every message but the first, and notes whose events are on their way."""

        def mark(self, message, decoder):
            return "", 0

        def sort(self, messages, decoders, busy):
            stage.busy.append({key[-1] for _, key in busy})
            known = [each for each in messages if not each.key.endswith(b"-a")]
            return Sorted([each for each in messages if each not in known], known, 1 if known else None)

    class Waiting(Slow):
        name, recogniser, busy = "waiting", Known(), []

        def handle(self, records):
            assert self.go.wait(20)
            return Picky.handle(self, records)

    stage = Waiting()
    worker = world.worker(stage)
    first = worker.begin([world.keyed("a", 1)])
    seen = [worker.begin([world.keyed("b", at)]) for at in range(2, 7)]  # more than there is room for parts
    assert stage.busy == [set(), *[{"a"}] * 5]
    assert not any(each.done() for each in (first, *seen))  # what came before is acknowledged before
    stage.go.set()
    for each in (first, *seen):
        each.result(20)
    assert stage.notes == [("after", "a")]


@pytest.mark.services
def test_what_fails_beside_is_raised_and_nothing_after_it_is_told(world):
    class Failing(Slow):
        name = "failing"

        def derive(self, events):
            if events[0].record["subject_id"] == "c":
                raise RedisClusterError("Redis runs in cluster mode")
            return super().derive(events)

        def after(self, events, outcomes):
            self.notes.append(("after", events[0].record["subject_id"]))

    stage = Failing()
    with pytest.raises(RedisClusterError):
        world.worker(stage).process([world.keyed(name, at) for at, name in enumerate("abcd")])
    assert ("after", "b") in stage.notes
    assert not {("derived", "d"), ("after", "d")} & set(stage.notes)


@pytest.mark.services
def test_what_is_short_is_taken_first_and_a_keys_events_stay_in_order(world):
    class Hasty(Slow):
        name, wanted_s = "hasty", 0.5

    def sent(subject, number, length):
        found = world.keyed(subject, number)
        found.value = world.encode(world.record(number, subject, comment="x" * length))
        return found

    stage = Hasty()
    stage.go.set()
    batch = [sent("long", 0, 900), sent("both", 1, 10), sent("mid", 2, 300), sent("both", 3, 500)]
    world.worker(stage).process([*batch, sent("short", 4, 1)])
    derived = [subject for what, subject in stage.notes if what == "derived"]
    assert derived == ["short", "mid", "both", "both", "long"]
