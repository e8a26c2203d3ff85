"""What one agent is: topics in, a topic out, and a pure function from a batch of events to what follows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from schemas.codec import Decoder

__all__ = [
    "Begun",
    "Derived",
    "Event",
    "Key",
    "MapStage",
    "Message",
    "Outcome",
    "Recogniser",
    "Record",
    "Sorted",
    "Stage",
    "key_of",
]

Record = dict[str, Any]
Key = tuple[str, str]
"""A topic, and the key of a message of it."""


@dataclass(slots=True)
class Message:
    """The parts of a Kafka message that are needed here; a record of Faust's consumer stands for one.

    `timestamp` is Kafka's, ms since the epoch.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any


def key_of(message: Message) -> Key:
    """Return what a message is about: what is about the same goes in order."""
    return message.topic, (message.key or b"").decode(errors="replace")


@dataclass(slots=True)
class Event:
    """One event as a stage sees it: decoded and within its topic's bounds.

    `record` is None for a tombstone. `time_ms` is the event time; a tombstone has the time of its envelope,
    else the time at which it was produced. `size` is the length of its value in bytes. `mark` is that by which
    the stage's recogniser would know another record that says the same, empty where it could not.
    """

    topic: str
    partition: int
    offset: int
    key: str
    record: Record | None
    time_ms: int
    size: int = 0
    mark: str = ""


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


class Sorted(NamedTuple):
    """Messages to be read, and those that say nothing new, which are through; each in order.

    `newest` is the latest event time of those that are through, ms; None where there are none.
    """

    left: Sequence[Message]
    known: Sequence[Message] = ()
    newest: int | None = None


class Recogniser(Protocol):
    """Tells what says nothing new by its bytes, so that it is not even read."""

    def mark(self, message: Message, decoder: Decoder) -> tuple[str, int]:
        """Return what tells what a message says, empty where it has to be read, and its event time, ms."""

    def sort(
        self, messages: Sequence[Message], decoders: Mapping[str, Decoder], busy: Collection[Key]
    ) -> Sorted:
        """Sort out what says nothing new, and see it through, before the rest is read; may repeat.

        `busy` are keys of events that are on their way: what else says the same as they did is not known yet.
        """


class Stage(ABC):
    """A function on a batch, hosted by an agent.

    `derive` returns the outcome of each event, in order. It holds no state between batches beyond caches and
    views, and the same event always leads to records of the same key and identity, so that handling it twice is
    recognisable. If it raises, the host sees each event through alone, and only one that raises alone becomes
    a dead letter; an error in `retried` (a service that is down) is tried again with backoff and loses nothing.

    `refreshed`: whether another encoder may make anew what records did not change.
    `recogniser`: tells what says nothing new, where that may be told without reading it.
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
    recogniser: Recogniser | None = None
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
