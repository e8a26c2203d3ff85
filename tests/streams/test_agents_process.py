"""The agents as processes, against real Kafka, registry and Redis: poison, kill -9, a registry that is down."""

import signal
import socket
import threading
import time

import pytest
from agent_world import NOW_MS, World, stop, until
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.kafka import consumer, producer
from schemas.envelope import new_traceparent, parse_headers

pytestmark = pytest.mark.services


@pytest.fixture
def world(stack, tmp_path):
    return World(stack, tmp_path)


def test_chats_are_enriched_and_poison_is_kept(world):
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
        assert stop(agent) == 0


def test_chats_are_read_however_their_producer_compressed_them(world):
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    for number, codec in enumerate(codecs):
        world.producer = producer(world.stack.kafka, compression_type=codec)
        world.send("chats", world.chat(number, "Where is my order? " * 20))
    with world.agent("chat-agent"):
        found = world.read("chats.enriched", lambda got: len(got) >= len(codecs))
    causes = {each["cause_id"] for each in world.records(found, "chats.enriched")}
    assert causes == {f"{world.dealer}-{number}" for number in range(len(codecs))}


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
def test_workers_that_come_and_go_lose_nothing_and_leave_the_position_at_the_end(world):
    sent = 0

    def send(count):
        nonlocal sent
        for number in range(sent, sent + count):
            chat = world.encode("chats", world.chat(number, f"Where is my order {number}?"))
            world.producer.produce("chats", chat, key=f"{world.dealer}-{number % 16}")
        assert world.producer.flush(20) == 0
        sent += count

    def all_there(got):
        if len(got) < sent:
            return False
        return len({each["cause_id"] for each in world.records(got, "chats.enriched")}) == sent

    send(400)
    first = world.start("chat-agent")
    try:
        world.read("chats.enriched", lambda got: len(got) >= 40)
        with world.agent("chat-agent"):  # partitions go to it while batches are on their way
            until(lambda: len(members(world)) == 2, world)
            send(400)
            world.read("chats.enriched", all_there)
            send(400)
        stop(first, signal.SIGKILL)
        with world.agent("chat-agent"):
            world.read("chats.enriched", all_there)
            until(lambda: left(world) == 0, world)  # without any more records
        found = world.whole("chats.enriched")  # with what came again after all were there
    finally:
        stop(first, signal.SIGKILL)
    records = world.records(found, "chats.enriched")
    assert len({each["event_id"] for each in records}) == sent  # what came again is known as the same
    with world.agent("chat-agent"):
        send(1)
        world.read("chats.enriched", all_there)
        until(lambda: left(world) == 0, world)
    assert len(world.whole("chats.enriched")) == len(found) + 1


def members(world):
    """The workers of the chat agents' group."""
    admin = AdminClient(world.stack.kafka.client_config())
    group = admin.describe_consumer_groups(["dealeriq-chat-agent"], request_timeout=20)["dealeriq-chat-agent"]
    return [each for each in group.result().members if each.assignment.topic_partitions]


def left(world):
    """Records of chats behind the group's position."""
    asking = consumer(world.stack.kafka, "dealeriq-chat-agent")
    try:
        count = len(asking.list_topics("chats", timeout=20).topics["chats"].partitions)
        places = asking.committed([TopicPartition("chats", each) for each in range(count)], timeout=20)
        ends = [asking.get_watermark_offsets(each, timeout=20)[1] for each in places]
        return sum(end - max(each.offset, 0) for each, end in zip(places, ends, strict=True))
    finally:
        asking.close()


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
