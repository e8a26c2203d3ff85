"""What becomes of one batch: decoded, checked, derived, produced; a dead letter for each event that cannot be.

It knows nothing of Faust: messages in, and when `process` returns every one of them is either in the target
topic, in the dead-letter topic, or counted as what needed nothing. It blocks, so its host runs it in a thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from connectors.errors import translated
from connectors.kafka import KafkaUnavailableError, Producer
from connectors.log import get_logger
from connectors.registry import Registry, RegistryRefusedError, RegistryUnavailableError
from schemas.codec import Decoder, Encoder
from schemas.envelope import parse_headers
from schemas.errors import ContractError, DealerIQError
from schemas.validate import valid
from streams.agents.delivery import Delivery
from streams.agents.line import Batch, Line
from streams.agents.pace import Pace
from streams.agents.settings import AgentSettings
from streams.agents.stage import Begun, Event, Message, Outcome, Stage, key_of
from streams.agents.task import Task, pairs, short_first
from streams.metrics import StageMeters

__all__ = ["BatchWorker", "StoppedError"]

_log = get_logger(__name__)
_T = TypeVar("_T")


class StoppedError(DealerIQError):
    """The process is stopping and the batch is not finished: its events come again after the restart."""

    remedy = "Nothing: the batch is read again."


class BatchWorker:
    """Runs one stage on batches of messages. One thread at a time; `stop` may come from any."""

    def __init__(
        self, stage: Stage, registry: Registry, producer: Producer, settings: AgentSettings, meters: StageMeters
    ) -> None:
        self.stage = stage
        self._registry = registry
        self._delivery = Delivery(stage.name, stage.target, producer)
        self._settings = settings
        self._meters = meters
        self._stopping = threading.Event()
        self._line = Line(stage.name, stage.at_once, _fatal)
        self._pace = Pace(stage.most_bytes, stage.wanted_s)
        self._decoders = {name: Decoder.of_topic(name, registry.schema) for name in stage.sources}
        self._encoder: Encoder | None = None
        down = (RegistryUnavailableError, RegistryRefusedError, KafkaUnavailableError)
        self._retried: tuple[type[Exception], ...] = (*down, *stage.retried)

    def stop(self) -> None:
        """Give up waiting for services that are down; `process` then raises StoppedError."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and wait for what is on its way."""
        self.stop()
        self._line.close()

    def process(self, messages: Sequence[Message], live: bool = True) -> None:
        """See every message through. Returns only when Kafka has acknowledged all that came of them.

        `live`: whether they come now; the age of what is looked at again is no freshness.

        Raises StoppedError, after `stop`, when a service is still down; what is not done by then comes again.
        """
        self.begin(messages, live).result()

    def begin(self, messages: Sequence[Message], live: bool = True) -> Future[None]:
        """As `process`, but return when the last part has been begun; what is returned says when it is through.

        One thread at a time. Raises what goes wrong by then, when nothing of the batch is on its way any more.
        """
        if self._encoder is None:
            ids = self._retrying(lambda: self._registry.register_all([self.stage.target]))
            self._encoder = Encoder(self.stage.target, ids[f"{self.stage.target}-value"])
        messages = self._recognised(messages, live)
        dead: list[tuple[Message, str]] = []
        read: list[Task] = []
        for message in messages:
            if message.value is None and not self.stage.takes_tombstones:  # there is nothing it could delete
                self._meters.count("tombstone")
                continue
            try:
                read.append(Task(message, self._read(message), key_of(message)))
            except ContractError as error:
                dead.append((message, str(error)))
        if self.stage.wanted_s is not None:
            read = short_first(read)
        batch = Batch()
        if not read and not dead:  # nothing that would have to wait for what is being derived
            return self._line.end(batch)
        try:
            for part in self._parts(read):
                done = self._put(batch, part, dead, live)
                dead = []
                if not self.stage.overlaps:
                    done.result()
        except BaseException:
            self._line.end(batch).exception()
            raise
        return self._line.end(batch)

    def _read(self, message: Message) -> Event:
        topic, key, value = message.topic, key_of(message)[1], message.value
        where = (topic, message.partition, message.offset, key)
        if value is None:
            time_ms = parse_headers(pairs(message)).time_ms
            return Event(*where, None, message.timestamp if time_ms is None else time_ms)
        decoder = self._decoders[topic]
        record = valid(topic, self._retrying(lambda: decoder.decode(value)))
        event = Event(*where, record, record["event_time"], len(value))
        if self.stage.recogniser is not None:
            mark, time_ms = self.stage.recogniser.mark(message, decoder)
            event.mark = mark if time_ms == event.time_ms else ""  # it may stand elsewhere, or otherwise
        return event

    def _recognised(self, messages: Sequence[Message], live: bool) -> Sequence[Message]:
        """Return what is left to be read, and count the rest."""
        recogniser = self.stage.recogniser
        if recogniser is None:
            return messages
        left, known, newest = self._retrying(
            lambda: recogniser.sort(messages, self._decoders, self._line.busy())
        )
        if known:
            self._meters.count("unchanged", len(known))
        if newest is not None and live:
            self._fresh([message.timestamp for message in known], newest)
        return left

    def _parts(self, read: list[Task]) -> Iterator[list[Task]]:
        """Yield a batch in parts of the stage's pace; none is one empty part."""
        if not read:
            yield []
        sizes, start = [task.event.size for task in read], 0
        while start < len(read):
            end = self._pace.end(sizes, start)
            yield read[start:end]
            start = end

    def _put(
        self, batch: Batch, tasks: list[Task], dead: list[tuple[Message, str]], live: bool
    ) -> Future[None]:
        """Begin a part when nothing on its way is about the same, and send it on its way.

        Where it fails as a whole, each event goes alone: one cannot take others along. Alone means to the end,
        `after` included, before the next: it may be about the same thing.
        """
        keys = frozenset([task.about for task in tasks])
        self._line.room(keys)
        began, begun = time.perf_counter(), self._begun(tasks)

        def derive() -> Any:
            started = time.perf_counter()
            found = self._retrying(begun.derive)
            if tasks:
                self._pace.took(sum(task.event.size for task in tasks), time.perf_counter() - started)
            return found

        def deliver(derived: Callable[[], Any]) -> None:
            try:
                found = derived()
                self._note(tasks, self._retrying(lambda: begun.outcomes(found)))
            except Exception as error:
                if _fatal(error):
                    raise
                self._meters.error(error)
                _log.warning("batch_failed_trying_each_event", stage=self.stage.name, error=repr(error))
                self._alone(tasks, dead, live)
            else:
                self._finish(tasks, dead, live)
            self._meters.took(time.perf_counter() - began)

        return self._line.put(batch, keys, derive, deliver)

    def _begun(self, tasks: list[Task]) -> Begun:
        if not tasks:
            return Begun(lambda: None, lambda _: [])
        try:
            return self._retrying(lambda: self.stage.begin([task.event for task in tasks]))
        except Exception as failed:
            if _fatal(failed):
                raise
            error = failed

        def derive() -> Any:
            raise error

        return Begun(derive, lambda _: [])

    def _alone(self, tasks: list[Task], dead: list[tuple[Message, str]], live: bool) -> None:
        for task in tasks:
            try:
                self._note([task], self._retrying(partial(self.stage.derive, [task.event])))
            except Exception as error:
                if _fatal(error):
                    raise
                task.outcome = Outcome(refused=str(error) or type(error).__name__)
            self._finish([task], dead, live)
            dead = []

    def _note(self, tasks: list[Task], outcomes: Sequence[Outcome]) -> None:
        """Keep what becomes of each event, and the bytes that follow from it."""
        encoder = self._encoder
        assert encoder is not None
        encoded = [
            [(each, None if each.record is None else encoder.encode(each.record)) for each in outcome.derived]
            for outcome in outcomes
        ]
        for task, outcome, values in zip(tasks, outcomes, encoded, strict=True):
            task.outcome, task.encoded = outcome, values

    def _finish(self, tasks: list[Task], dead: list[tuple[Message, str]], live: bool) -> None:
        dead = [*dead, *((task.message, task.outcome.refused) for task in tasks if task.outcome.refused)]
        if not live:  # their dead letters were kept when they came
            dead = []
        done = [task for task in tasks if task.outcome.refused is None]
        if done or dead:
            self._retrying(lambda: self._delivery.deliver(done, dead))
        if done:
            events, outcomes = [task.event for task in done], [task.outcome for task in done]
            self._retrying(lambda: self.stage.after(events, outcomes), every_error=True)
        self._count(done, dead, live)

    def _retrying(self, act: Callable[[], _T], *, every_error: bool = False) -> _T:
        """Do it again with growing waits while a service is down."""
        wait = self._settings.retry_first_s
        while True:
            try:
                return act()
            except Exception as error:
                if not every_error and not isinstance(error, self._retried):
                    raise
                self._meters.error(error)
                known = translated(error)
                _log.warning(
                    "service_down_retrying",
                    stage=self.stage.name,
                    error=known.told if known else str(error),
                    wait_s=round(wait, 2),
                )
                if self._stopping.wait(wait * random.uniform(0.5, 1.0)):
                    raise StoppedError(f"{self.stage.name} stops while a service is down: {error}") from error
                wait = min(wait * 2, self._settings.retry_most_s)

    def _count(self, done: list[Task], dead: list[tuple[Message, str]], live: bool) -> None:
        meters = self._meters
        for outcome, times in Counter([task.outcome.name for task in done]).items():
            meters.count(outcome, times)
        for message, reason in dead:
            _log.warning(
                "dead_letter",
                stage=self.stage.name,
                position=f"{message.topic}[{message.partition}]@{message.offset}",
                error=reason,
            )
        if dead:
            meters.count("dead_letter", len(dead))
        if done and live:
            newest = max([task.event.time_ms for task in done])
            self._fresh([task.message.timestamp for task in done], newest)

    def _fresh(self, timestamps: Sequence[int], newest: int) -> None:
        """Note the ages of messages that are through, and the latest of their event times."""
        now_ms = time.time() * 1000
        self._meters.freshness([max(0.0, (now_ms - each) / 1000) for each in timestamps])
        self._meters.event_time(newest)


def _fatal(error: BaseException) -> bool:
    """Whether no record is to blame, as for a wrong setting or a stop: it must not make dead letters."""
    if isinstance(error, DealerIQError):
        return not isinstance(error, ContractError)
    return not isinstance(error, Exception)
