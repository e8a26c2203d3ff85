"""Processes that read and write events, against the real stack, with a dealer of one test alone."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import closing, contextmanager
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition

from connectors.kafka import consumer, ensure_topics, producer
from connectors.registry import Registry
from connectors.whole import WholeTopic
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers

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

    def whole(self, topic):
        """Every record of this test's dealer up to the topic's end as of now."""
        with closing(WholeTopic(self.stack.kafka, topic, "test")) as whole:
            return [each for each in whole.records() if each.key() == self.dealer.encode()]

    def records(self, messages, topic):
        decoder = Decoder.of_topic(topic, self.registry.schema)
        return [decoder.decode(each.value()) for each in messages]

    def log(self):
        return "\n".join(each.read_text()[-3_000:] for each in self.folder.glob("*.log"))

    @contextmanager
    def agent(self, name, **environment):
        """One process of that name, stopped in good order at the end."""
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
            command = [str(SCRIPT), name] if name.endswith("-agent") else ["-m", "dealeriq.processes", name]
            return subprocess.Popen([sys.executable, *command], env=variables, stdout=log, stderr=log)


def stop(process, how=signal.SIGTERM, timeout_s=20.0):
    if process.poll() is None:
        process.send_signal(how)
    try:
        return process.wait(timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(holds, world, timeout_s=180.0):
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, world.log()
        time.sleep(0.1)
