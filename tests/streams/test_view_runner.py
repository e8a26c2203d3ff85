"""The runner on a real broker: where it goes on, what it waits for, and that no dead letter is lost."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from connectors.kafka import consumer, ensure_topics, producer
from dealeriq.settings import Settings
from schemas.catalogue import topic
from streams.views.runner import PositionBeyondLogError, ViewRunner
from streams.views.view import Position, View
from tests.waiting import until

pytestmark = pytest.mark.services


class AwayError(Exception):
    """The store of these tests is away."""


class Kept(View):
    """Keeps values in memory, beside their position; what starts with `bad` cannot be read."""

    retried = (AwayError,)

    def __init__(self, name: str, *topics: str) -> None:
        self.name, self.topics = name, topics
        self.held: dict[tuple[str, int, int], bytes] = {}
        self.position: Position = {}
        self.before_moving: Callable[[], None] = lambda: None

    def positions(self) -> Position:
        return dict(self.position)

    def apply(self, messages: Sequence[Any]) -> None:
        bad = [each for each in messages if each.value().startswith(b"bad")]
        self.refuse([(each, ValueError("it is bad")) for each in bad])
        self.before_moving()
        for each in messages:
            if each not in bad:
                self.held[each.topic(), each.partition(), each.offset()] = each.value()
            place = each.topic(), each.partition()
            self.position[place] = max(self.position.get(place, 0), each.offset() + 1)


@pytest.fixture
def name() -> str:
    """Of a topic of this test's own."""
    return f"runner-{uuid.uuid4().hex[:8]}"


def create(stack: Settings, name: str) -> None:
    ensure_topics(
        stack.kafka, [replace(topic("documents"), name=each, partitions=2) for each in (name, f"{name}.dlq")]
    )


def letters(stack: Settings, name: str) -> list[tuple[bytes, bytes]]:
    """The dead letters of a topic: value and reason."""
    reader = consumer(stack.kafka, "runner-test", enable_partition_eof=True)
    reader.assign([TopicPartition(f"{name}.dlq", n, 0) for n in range(2)])
    found, ended = [], 0
    while ended < 2:
        (message,) = reader.consume(1, 60)
        if message.error():
            ended += 1
        else:
            found.append((message.value(), dict(message.headers())["dlq_error"]))
    reader.close()
    return found


@pytest.fixture
def start(stack: Settings) -> Iterator[Callable[[View], Callable[[], BaseException | None]]]:
    """Starts a runner of a view; what it returns ends the runner and says how it ended."""
    ends: list[Callable[[], BaseException | None]] = []

    def begin(view: View) -> Callable[[], BaseException | None]:
        stop, failed = threading.Event(), []

        def run() -> None:
            try:
                ViewRunner(stack.kafka, view, stop=stop).run()
            except BaseException as failure:
                failed.append(failure)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end() -> BaseException | None:
            if not failed:
                stop.set()
            thread.join(60)
            assert not thread.is_alive()
            return failed[0] if failed else None

        ends.append(end)
        return end

    yield begin
    for each in ends:
        each()


def send(stack: Settings, name: str, *values: bytes) -> None:
    writer = producer(stack.kafka)
    for number, value in enumerate(values):
        writer.produce(name, value, key=b"k", partition=number % 2)
    assert writer.flush(60) == 0


def test_it_goes_on_from_the_stores_position_and_waits_for_a_topic(
    stack: Settings, name: str, start: Any
) -> None:
    view = Kept("kept", name)
    end = start(view)  # before there is a topic
    time.sleep(0.5)
    create(stack, name)
    send(stack, name, b"a", b"b", b"c")
    until(lambda: len(view.held) == 3, 60.0)
    assert end() is None
    again = Kept("kept", name)
    again.position = {(name, 0): 1}  # the store says less than what the group has committed
    end = start(again)
    until(lambda: again.position == {(name, 0): 2, (name, 1): 1}, 60.0)
    assert set(again.held.values()) == {b"b", b"c"}
    assert end() is None


def test_a_dead_letter_is_kept_before_the_position_moves_and_once_a_batch(
    stack: Settings, name: str, start: Any
) -> None:
    create(stack, name)
    view, calls = Kept("kept", name), []

    def crash() -> None:
        assert letters(stack, name) == [(b"bad", b"it is bad")]
        calls.append(1)
        if len(calls) < 3:
            raise AwayError("the store is away")  # tried again: the letter is there already
        if len(calls) == 3:
            raise RuntimeError("the process dies")

    view.before_moving = crash
    send(stack, name, b"bad")
    end = start(view)
    until(lambda: len(calls) == 3, 60.0)
    failure = end()
    assert isinstance(failure, RuntimeError), failure
    assert view.position == {}
    assert letters(stack, name) == [(b"bad", b"it is bad")]


def test_a_position_that_the_topic_has_not_reached_is_refused(stack: Settings, name: str, start: Any) -> None:
    create(stack, name)
    view = Kept("kept", name)
    view.position = {(name, 1): 9}
    end = start(view)
    until(lambda: isinstance(end(), PositionBeyondLogError), 60.0)


def test_offsets_are_committed_for_who_watches_with_a_new_word_each_second(
    stack: Settings, name: str, start: Any
) -> None:
    from streams.verify.broker import Broker

    create(stack, name)
    view = Kept(f"kept-{name}", name)
    send(stack, name, b"a", b"b", b"c")
    end = start(view)
    broker, group = Broker(stack.kafka), f"dealeriq-{view.name}"
    until(lambda: broker.committed(group, name) == {0: 2, 1: 1}, 60.0)
    said = broker.beat(group)
    until(lambda: broker.beat(group) != said, 60.0)
    assert end() is None
