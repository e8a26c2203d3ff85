"""Labels of the whole running system: each is right while both sides, and what joins them, are killed."""

import os
import signal
import time
import uuid
from collections import defaultdict
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from sending import NOON

from connectors.kafka import consumer, producer
from connectors.registry import Registry
from dealeriq.system import System
from dealeriq.verifier import verifier
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(600)]

TEXTS = [
    "Where is my order?",
    "It broke on the first day.",
    "Thank you, great service!",
    "I want to return it.",
]
CHATS = 240


def kill(system: System, name: str) -> None:
    deadline = time.monotonic() + 120
    while (pid := next(each.pid for each in system.supervisor.status() if each.name == name)) is None:
        assert time.monotonic() < deadline, f"{name} is not started again"
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def records(system: System, topic: str, dealer: str) -> list[dict[str, Any]]:
    """Every record of a topic that is of this dealer."""
    settings = system.supervisor.settings
    decoder = Decoder.of_topic(topic, Registry(settings.registry).schema)
    reading = consumer(settings.kafka, f"test-{uuid.uuid4().hex}")
    found = []
    try:
        for partition in reading.list_topics(topic, timeout=30).topics[topic].partitions:
            place = TopicPartition(topic, partition, 0)
            _, end = reading.get_watermark_offsets(place, timeout=30)
            reading.assign([place])
            while end and reading.position([place])[0].offset < end:
                some = reading.consume(500, 0.2)
                found += [each.value() for each in some if each.key() == dealer.encode()]
    finally:
        reading.close()
    return [decoder.decode(each) for each in found]


def test_kill_9_of_both_sides_ends_with_every_label_right(system: System) -> None:
    settings = system.supervisor.settings
    dealer = f"L{uuid.uuid4().hex[:8]}"
    ids = Registry(settings.registry).register_all(["chats", "feedback"])
    writer = producer(settings.kafka, linger_ms=1)

    def send(topic: str, record: dict[str, Any]) -> None:
        value = Encoder(topic, ids[f"{topic}-value"]).encode(record)
        envelope = headers(record["event_id"], topic, "test", record["event_time"], dealer)
        writer.produce(topic, value, key=dealer, headers=envelope)

    for number in range(CHATS):
        about, at = f"{dealer}-c{number}", NOON + number
        send("feedback", {
            "event_id": f"{dealer}-f{number}", "dealer_id": dealer, "subject_type": "chat", "subject_id": about,
            "kind": "thumb", "value": 1.0, "comment": None, "source": "test", "event_time": at,
        })  # fmt: skip
        send("chats", {
            "event_id": about, "conversation_id": "c", "dealer_id": dealer, "customer_id": None,
            "sender": "customer", "text": f"{TEXTS[number % 4]} {number}", "language": "en", "event_time": at,
        })  # fmt: skip
        if number == CHATS // 3:
            assert writer.flush(60) == 0
            kill(system, "label-view")
        if number == 2 * CHATS // 3:
            assert writer.flush(60) == 0
            kill(system, "chat-agent")
            kill(system, "label-view")
    assert writer.flush(60) == 0

    deadline = time.monotonic() + 240
    while True:
        labels = records(system, "labels", dealer)
        if len({each["cause_id"] for each in labels}) == CHATS:
            break
        assert time.monotonic() < deadline, f"{len(labels)} labels of {CHATS}"
        time.sleep(0.5)
    intents = {each["cause_id"]: each["intent"] for each in records(system, "chats.enriched", dealer)}
    said = defaultdict(set)
    for each in labels:
        said[each["subject_id"]].add((each["event_id"], each["label"]))
    assert {about: {label for _, label in found} for about, found in said.items()} == {
        about: {intent} for about, intent in intents.items()
    }
    assert all(len(found) == 1 for found in said.values())  # a repeat is the same event
    assert len(set(intents.values())) > 1

    one = verifier(settings)
    one.wait_s = 300
    report = one.run()
    account = report.topics["feedback → labels"]
    assert report.clean, [finding.line() for finding in report.findings[:20]]
    assert account["lost"] == account["waiting"] == 0
    assert account["applied"] >= CHATS
