"""What one agent is: topics in, a topic out, and a pure function from a batch of events to what follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from schemas.codec import Apart

__all__ = ["Begun", "Derived", "Event", "MapStage", "Outcome", "Record", "Stage"]

Record = dict[str, Any]


def _NOTHING() -> Record:  # noqa: N802
    raise AssertionError("there is nothing to read")


class Event:
    """One event as a stage sees it: decoded and within its topic's bounds.

    `record` is None for a tombstone. `time_ms` is the event time; a tombstone has the time of its envelope,
    else the time at which it was produced. `size` is the length of its value in bytes. `said` is all that the
    record says but for its time, as bytes, where that can be told (`Decoder.apart`).
    """

    __slots__ = ("_read", "_record", "key", "offset", "partition", "said", "size", "time_ms", "topic")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: str,
        record: Record | None,
        time_ms: int,
        size: int = 0,
    ) -> None:
        self.topic, self.partition, self.offset, self.key = topic, partition, offset, key
        self.time_ms, self.size = time_ms, size
        self.said: bytes | None = None
        self._record, self._read = record, _NOTHING

    @classmethod
    def unread(
        cls,
        topic: str,
        partition: int,
        offset: int,
        key: str,
        read: Callable[[], Record],
        apart: Apart,
        size: int = 0,
    ) -> Event:
        """Return an event whose record is read when it is first asked for, which may raise ContractError.

        Until then `time_ms` and `said` hold only where another record that says the same was read.
        """
        event = cls(topic, partition, offset, key, None, apart.time_ms, size)
        event.said, event._read = apart.said, read
        return event

    @property
    def record(self) -> Record | None:
        """What the event says."""
        if self._read is not _NOTHING:
            self._record, self._read = self._read(), _NOTHING
            if self._record["event_time"] != self.time_ms:  # it stands elsewhere, or otherwise
                self.time_ms, self.said = self._record["event_time"], None
        return self._record

    @property
    def tombstone(self) -> bool:
        """Whether it is one."""
        return self._record is None and self._read is _NOTHING


@dataclass(frozen=True, slots=True)
class Derived:
    """A record for the stage's target topic; without a `record` it is a tombstone.

    `subject`, `identity` (None: the record's `event_id`) and `time_ms` (event time; None: the cause's) go into
    the envelope, `outcome` into the metrics.
    """

    key: str
    record: Record | None
    subject: str
    outcome: str = "produced"
    identity: str | None = None
    time_ms: int | None = None


class Outcome(NamedTuple):
    """What became of one event: how it is counted, and the records that follow from it.

    With `refused` it is a dead letter, for that reason, and nothing follows. `memo` is what `derive` leaves for
    `after`.
    """

    name: str = "produced"
    derived: Sequence[Derived] = ()
    refused: str | None = None
    memo: Any = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch that a stage has begun: `derive` takes its time, and `outcomes` makes each event's of its result.

    Each is called on a thread of its own, and again where it raised what the stage retries.
    """

    derive: Callable[[], Any]
    outcomes: Callable[[Any], Sequence[Outcome]]


class Stage(ABC):
    """A function on a batch, hosted by an agent.

    `derive` returns the outcome of each event, in order. It holds no state between batches beyond caches and
    views, and the same event always leads to records of the same key and identity, so that handling it twice is
    recognisable. If it raises, the host sees each event through alone, and only one that raises alone becomes
    a dead letter; an error in `retried` (a service that is down) is tried again with backoff and loses nothing.

    `refreshed`: whether another encoder may make anew what records did not change.
    `unread`: whether `derive` is given events that are not read, where that may be spared.
    `takes_tombstones`: whether `derive` is given tombstones; else they are counted and passed over.
    `most_bytes`: of values handled together; a larger batch is handled in parts.
    `wanted_s`: how long such a part is to take, s; what is in it is out when it is through. What is short is
    taken first.
    `overlaps`: whether a part may be begun while those before it are derived, delivered and told to `after`,
    where no key is in two of them; `at_once` are derived at the same time then.
    """

    name: str
    sources: tuple[str, ...]
    target: str
    retried: tuple[type[Exception], ...] = ()
    takes_tombstones = False
    refreshed = False
    unread = False
    most_bytes: int | None = None
    wanted_s: float | None = None
    overlaps = False
    at_once = 1

    @abstractmethod
    def derive(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Return one outcome for each event, in order."""

    def begin(self, events: Sequence[Event]) -> Begun:
        """Begin `derive`, for a host with time to do so beside other work; what is slow is left for later."""
        return Begun(partial(self.derive, events), _as_it_is)

    def after(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:  # noqa: B027
        """Called when what follows is in Kafka and before the events count as done; may repeat.

        It is given no event that became a dead letter. An error here is always retried.
        """


class MapStage(Stage):
    """The simple case: one topic of events in, and exactly one record out for each.

    A subclass names its topic in `source` and implements `handle`.
    """

    source: str

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if hasattr(cls, "source"):
            cls.sources = (cls.source,)

    @abstractmethod
    def handle(self, records: Sequence[Record]) -> list[Derived]:
        """Return one derived event for each record, in order."""

    def after_each(self, records: Sequence[Record], derived: Sequence[Derived]) -> None:
        """As `after`, with the records and what was derived from them."""

    def derive(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Return one outcome for each event, in order."""
        derived = self.handle([_record(event) for event in events])
        return [Outcome(each.outcome, (each,)) for each in derived]

    def after(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """Hand the records and what was derived from them to `after_each`."""
        derived = [each for outcome in outcomes for each in outcome.derived]
        self.after_each([_record(event) for event in events], derived)


def _as_it_is(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    return outcomes


def _record(event: Event) -> Record:
    assert event.record is not None, "a MapStage takes no tombstones"
    return event.record
