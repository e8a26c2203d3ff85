"""The transactional host on a real Kafka: output once, whatever the stage and the process do."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.kafka import consumer, producer
from dealeriq.settings import Settings
from streams.transactional import FencedError, Outgoing, TransactionalRunner

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


class AwayError(Exception):
    pass


class Copy:
    """Copies one topic to another; `trouble` is called with the number of each batch."""

    def __init__(self, source: str, target: str, trouble: Callable[[int], None] = lambda batch: None) -> None:
        self.topics = (source,)
        self._target, self._trouble, self._batch = target, trouble, 0

    def handle(self, messages: Sequence[Any]) -> list[Outgoing]:
        self._batch += 1
        found = [Outgoing(self._target, b"k", each.value(), []) for each in messages]
        self._trouble(self._batch)
        return found


class Bench:
    """Two topics of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.name = settings, f"t{uuid.uuid4().hex[:8]}"
        self.source, self.target = f"{self.name}.in", f"{self.name}.out"
        admin = AdminClient(settings.kafka.client_config())
        topics = [NewTopic(name, 2, 1) for name in (self.source, self.target)]
        for made in admin.create_topics(topics).values():
            made.result(30)
        self.sent = 0
        self._writer = producer(settings.kafka)

    def send(self, count: int) -> None:
        for number in range(self.sent, self.sent + count):
            self._writer.produce(self.source, b"%d" % number, key=b"%d" % number)
        assert self._writer.flush(60) == 0
        self.sent += count

    def copied(self) -> list[int]:
        """What is committed in the target."""
        reader = consumer(self.settings.kafka, uuid.uuid4().hex, enable_partition_eof=True)
        left, found = {0, 1}, []
        try:
            reader.assign([TopicPartition(self.target, number, 0) for number in left])
            while left:
                for message in reader.consume(1_000, 0.1):
                    if message.error() is not None:
                        left.discard(message.partition())
                    else:
                        found.append(int(message.value()))
        finally:
            reader.close()
        return found

    def runner(self, stage: Copy, stop: threading.Event, **more: Any) -> TransactionalRunner:
        return TransactionalRunner(
            self.settings.kafka, stage, name="copy", group=self.name, stop=stop, batch_records=50,
            retried=(AwayError,), **more,
        )  # fmt: skip

    def until_copied(self) -> None:
        deadline = time.monotonic() + 120
        while len(found := self.copied()) < self.sent:
            assert time.monotonic() < deadline, f"{len(found)} of {self.sent}"
            time.sleep(0.1)
        assert Counter(found) == dict.fromkeys(range(self.sent), 1)


class Running(threading.Thread):
    def __init__(self, runner: TransactionalRunner) -> None:
        super().__init__(daemon=True)
        self._runner, self.failure = runner, None
        self.start()

    failure: BaseException | None

    def run(self) -> None:
        try:
            self._runner.run()
        except BaseException as failure:
            self.failure = failure


def test_what_a_stage_raises_repeats_nothing(stack: Settings) -> None:
    bench, stop = Bench(stack), threading.Event()

    def away(batch: int) -> None:
        if batch in (2, 3, 5):
            raise AwayError("for a while")

    def broken(batch: int) -> None:
        if batch == 2:
            raise ValueError("a fault in the stage")

    bench.send(300)
    # A stage that fails for good ends the runner, with a batch produced in a transaction that is aborted.
    with pytest.raises(ValueError, match="a fault"):
        bench.runner(Copy(bench.source, bench.target, broken), stop, commit_ms=10_000).run()
    assert bench.copied() == []
    running = Running(bench.runner(Copy(bench.source, bench.target, away), stop))
    bench.until_copied()
    bench.send(200)
    bench.until_copied()
    stop.set()
    running.join(60)
    assert running.failure is None
    # From where it committed last: nothing comes twice.
    stop = threading.Event()
    running = Running(bench.runner(Copy(bench.source, bench.target), stop))
    bench.send(10)
    bench.until_copied()
    stop.set()
    running.join(60)


def test_a_second_runner_of_the_same_name_takes_over(stack: Settings) -> None:
    bench, stop = Bench(stack), threading.Event()
    bench.send(100)
    first = Running(bench.runner(Copy(bench.source, bench.target), stop))
    bench.until_copied()
    second = Running(bench.runner(Copy(bench.source, bench.target), stop))
    deadline = time.monotonic() + 120
    while first.is_alive():
        bench.send(20)
        bench.until_copied()
        assert time.monotonic() < deadline
    assert isinstance(first.failure, FencedError)
    bench.send(50)
    bench.until_copied()
    assert second.failure is None
    stop.set()
    second.join(60)


def test_without_a_position_it_begins_where_it_is_told(stack: Settings) -> None:
    bench, stop = Bench(stack), threading.Event()
    bench.send(50)
    running = Running(bench.runner(Copy(bench.source, bench.target), stop, since_s=0.0))
    deadline = time.monotonic() + 120
    while not (found := bench.copied()):  # it may begin before any of these
        bench.send(1)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert min(found) >= 50
    stop.set()
    running.join(60)
