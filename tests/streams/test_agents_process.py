"""The agents as processes, against real Kafka, registry and Redis: poison, kill -9, a registry that is down."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition

from connectors.kafka import consumer, ensure_topics, producer
from connectors.registry import Registry
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers, new_traceparent, parse_headers

pytestmark = pytest.mark.services

NOW_MS = 1_500_000_000_000
SCRIPT = Path(__file__).parent / "agent_process.py"


class World:
    """Producing to and reading from the stack, with a dealer of this test alone."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        self.dealer = f"agents-{uuid.uuid4().hex[:8]}"
        ensure_topics(stack.kafka)
        self.registry = Registry(stack.registry)
        self.ids = self.registry.register_all(["chats", "chats.enriched", "feedback", "labels"])
        self.producer = producer(stack.kafka)
        self.skip_backlog("dealeriq-chat-agent", "chats")
        self.skip_backlog("dealeriq-feedback-agent", "feedback")

    def skip_backlog(self, group, name, timeout_s=120.0):
        """Moves a group to the ends of its topic: what other tests left there is none of this test's work."""
        mover, end = consumer(self.stack.kafka, group), time.monotonic() + timeout_s
        try:
            count = len(mover.list_topics(name, timeout=30).topics[name].partitions)
            ends = [TopicPartition(name, each) for each in range(count)]
            while True:
                try:
                    for each in ends:
                        each.offset = mover.get_watermark_offsets(each, timeout=30)[1]
                    mover.commit(offsets=ends, asynchronous=False)
                    return
                except KafkaException:  # a new topic has no leader yet; a killed agent is a member for a while
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.5)
        finally:
            mover.close()

    def encode(self, topic, record):
        return Encoder(topic, self.ids[f"{topic}-value"]).encode(record)

    def chat(self, number, text="Where is my order?", **more):
        return {
            "event_id": f"{self.dealer}-{number}",
            "conversation_id": "c1",
            "dealer_id": self.dealer,
            "customer_id": None,
            "sender": "customer",
            "text": text,
            "language": "en",
            "event_time": NOW_MS + number,
        } | more

    def feedback(self, number, subject, **more):
        return {
            "event_id": f"{self.dealer}-f{number}",
            "dealer_id": self.dealer,
            "subject_type": "chat",
            "subject_id": subject,
            "kind": "thumb",
            "value": 1.0,
            "comment": None,
            "source": "test",
            "event_time": NOW_MS + number,
        } | more

    def send(self, topic, *values, traceparent=None):
        for value in values:
            raw = value if isinstance(value, bytes | None) else self.encode(topic, value)
            identity = value["event_id"] if isinstance(value, dict) else "none"
            sent = headers(identity, topic, "test", NOW_MS, "s", traceparent)
            self.producer.produce(topic, raw, key=self.dealer.encode(), headers=sent)
        assert self.producer.flush(20) == 0

    def read(self, topic, enough, timeout_s=300.0):
        """Every record of this test's dealer since the test began, until `enough(records)`."""
        reading = consumer(self.stack.kafka, f"test-{uuid.uuid4().hex}")
        count = len(reading.list_topics(topic, timeout=10).topics[topic].partitions)
        reading.assign([TopicPartition(topic, each, 0) for each in range(count)])
        found, end = [], time.monotonic() + timeout_s
        try:
            while time.monotonic() < end:
                for message in reading.consume(500, 0.2):
                    assert message.error() is None, message.error()
                    if message.key() == self.dealer.encode():
                        found.append(message)
                if enough(found):
                    return found
        finally:
            reading.close()
        raise AssertionError(f"{topic}: {len(found)} records in {timeout_s} s; {self.log()}")

    def records(self, messages, topic):
        decoder = Decoder.of_topic(topic, self.registry.schema)
        return [decoder.decode(each.value()) for each in messages]

    def log(self):
        return "\n".join(each.read_text()[-3_000:] for each in self.folder.glob("*.log"))

    @contextmanager
    def agent(self, name, **environment):
        process = self.start(name, **environment)
        try:
            yield process
        finally:
            stop(process)

    def start(self, name, **environment):
        variables = (
            os.environ | self.stack.environment() | {"DEALERIQ_DATA_DIR": str(self.folder)} | environment
        )
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, str(SCRIPT), name], env=variables, stdout=log, stderr=log)


def stop(process, how=signal.SIGTERM, timeout_s=20.0):
    if process.poll() is None:
        process.send_signal(how)
    try:
        return process.wait(timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def world(stack, tmp_path):
    return World(stack, tmp_path)


def test_chats_are_enriched_poison_is_kept_and_feedback_finds_its_chat(world):
    trace = new_traceparent()
    absurd = world.chat(3, event_time=-5)
    world.send("chats", world.chat(1, "Thank you so much, great service!"), traceparent=trace)
    world.send("chats", b"\x00\xff\xff\xff\xff no", b"junk", absurd, None, world.chat(2))
    with world.agent("chat-agent") as agent:
        found = world.read("chats.enriched", lambda got: len(got) >= 2)
        dead = world.read("chats.dlq", lambda got: len(got) >= 3)
        enriched = {each["cause_id"]: each for each in world.records(found, "chats.enriched")}
        assert set(enriched) == {f"{world.dealer}-1", f"{world.dealer}-2"}
        praise = enriched[f"{world.dealer}-1"]
        assert praise["intent"] == "praise"
        assert praise["sentiment"] > 0.5
        assert praise["event_time"] == NOW_MS + 1
        envelope = next(
            parse_headers(each.headers())
            for each in found
            if dict(each.headers())["ce_subject"].endswith(b"-1")
        )
        assert envelope.event_id == praise["event_id"]
        assert envelope.traceparent[3:35] == trace[3:35]
        assert envelope.traceparent != trace
        assert [each.value() for each in dead] == [
            b"\x00\xff\xff\xff\xff no",
            b"junk",
            world.encode("chats", absurd),
        ]
        for each in dead:
            said = dict(each.headers())
            assert said["dlq_topic"] == b"chats"
            assert said["dlq_stage"] == b"chat-agent"
            assert int(said["dlq_offset"]) >= 0
        assert b"schema id" in dict(dead[0].headers())["dlq_error"]
        assert b"event_time" in dict(dead[2].headers())["dlq_error"]
        world.send(
            "feedback",
            world.feedback(1, f"{world.dealer}-1"),
            world.feedback(2, "never seen"),
            world.feedback(3, f"{world.dealer}-2", kind="correction", comment="delivery_complaint"),
            world.feedback(4, f"{world.dealer}-1", dealer_id="somebody else"),
        )
        with world.agent("feedback-agent"):
            labels = world.records(world.read("labels", lambda got: len(got) >= 3), "labels")
            wrong = world.read("feedback.dlq", lambda got: len(got) >= 1)
        assert {each["cause_id"][-1]: each["label"] for each in labels} == {
            "1": "praise",
            "2": "thumb",
            "3": "delivery_complaint",
        }
        assert b"somebody else" in dict(wrong[0].headers())["dlq_error"]
        assert stop(agent) == 0


@pytest.mark.fault
def test_kill_9_loses_no_chat_and_repeats_are_recognisable(world):
    texts = ["Where is my order?", "It broke.", "Do you have tyres?", "Thanks a lot!"]
    wanted = {f"{world.dealer}-{number}" for number in range(600)}
    world.send("chats", *[world.chat(number, f"{texts[number % 4]} {number}") for number in range(300)])
    first = world.start("chat-agent")
    try:
        world.read("chats.enriched", lambda got: len(got) >= 40)
        world.send(
            "chats", *[world.chat(number, f"{texts[number % 4]} {number}") for number in range(300, 600)]
        )
    finally:
        stop(first, signal.SIGKILL)
    with world.agent("chat-agent"):
        causes = lambda got: {each["cause_id"] for each in world.records(got, "chats.enriched")}  # noqa: E731
        found = world.read("chats.enriched", lambda got: len(got) >= 600 and causes(got) == wanted)
    records = world.records(found, "chats.enriched")
    by_cause = {}
    for each in records:
        by_cause.setdefault(each["cause_id"], set()).add(each["event_id"])
    assert set(by_cause) == wanted
    assert all(len(ids) == 1 for ids in by_cause.values())
    assert len({identity for ids in by_cause.values() for identity in ids}) == 600


@pytest.mark.fault
def test_a_registry_that_is_down_is_waited_for(world):
    gate = Gate(world.stack.registry.address)
    try:
        world.send("chats", world.chat(1))
        with world.agent("chat-agent", DEALERIQ_REGISTRY__URL=gate.url):
            until(lambda: "service_down_retrying" in world.log(), world)
            gate.open()
            found = world.read("chats.enriched", lambda got: len(got) >= 1)
            assert world.records(found, "chats.enriched")[0]["cause_id"] == f"{world.dealer}-1"
    finally:
        gate.close()


def test_what_an_aborted_transaction_left_is_not_read(world):
    writer = producer(world.stack.kafka, transactional_id=f"test-{world.dealer}")
    writer.init_transactions(20)
    for number, commit in ((1, False), (2, True), (3, False), (4, True)):
        writer.begin_transaction()
        writer.produce("chats", world.encode("chats", world.chat(number)), key=world.dealer.encode())
        if commit:
            writer.commit_transaction(20)
        else:
            writer.abort_transaction(20)
    with world.agent("chat-agent"):
        found = world.read("chats.enriched", lambda got: len(got) >= 2)
        time.sleep(2.5)  # longer than the interval of commits
    assert [each["cause_id"][-1] for each in world.records(found, "chats.enriched")] == ["2", "4"]
    with world.agent("chat-agent"):  # the position moved past the gaps that transactions leave
        world.send("chats", world.chat(5))
        again = world.read("chats.enriched", lambda got: len(got) >= 3)
    assert [each["cause_id"][-1] for each in world.records(again, "chats.enriched")] == ["2", "4", "5"]


class Gate:
    """A port that refuses until it is opened, and then leads to the address."""

    def __init__(self, url):
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        name, _, port = host.partition(":")
        self._target = (name, int(port))
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/{path}"

    def open(self):
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self._listener.close()

    def _serve(self):
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            other = socket.create_connection(self._target)
            for a, b in ((one, other), (other, one)):
                threading.Thread(target=_copy, args=(a, b), daemon=True).start()


def _copy(source, target):
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def until(holds, world, timeout_s=180.0):
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, world.log()
        time.sleep(0.1)
