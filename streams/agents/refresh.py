"""What the topics hold, looked at again by the agent that encodes it: only what its encoder lacks is encoded.

An agent follows changes. Another encoder, or another cut of texts, changes no record: what came before is
brought up by a refresh, on a schedule or when asked for. It runs in the agent, between its batches, because
the agent alone knows of an owner what came last; a refresh beside it could put an older record over a newer
one. For the same reason it gives the agent the newest record of each key alone, and none of a key that came
meanwhile.

Each partition has its own place, so every worker refreshes what it is given. A refresh that is cut short begins
again; what it has encoded by then is not encoded again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from prometheus_client import Gauge

from connectors.settings import KafkaSettings
from connectors.whole import WholeTopic
from models.embedding import split
from models.schedule import due
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.agents.stage import Message
from streams.metrics import REGISTRY

__all__ = ["Done", "RefreshLog", "Refresher"]

REFRESHED = Gauge(
    "dealeriq_refreshed_timestamp_seconds",
    "When an agent last looked at everything again, of its oldest partition, epoch s.",
    ["stage"],
    registry=REGISTRY,
)
_READ_S = 600.0
_LOT = 32  # records between which changes get their turn
Place = tuple[str, int]


class Done(NamedTuple):
    """The last refresh of a partition: which request it answered, when it ended (ms since the epoch); and of
    all partitions that were refreshed with it, the records that were looked at, and how long it took, s.
    """

    asked_ms: int
    at_ms: int
    records: int
    seconds: float


class RefreshLog:
    """What was asked for and what is done, in a hash of each agent; errors are the redis-py client's own."""

    def __init__(self, redis: Any, stage: str, project: str = "dealeriq") -> None:
        self._redis, self._key = redis, f"{project}:refresh:{stage}"

    def ask(self, now_ms: int) -> None:
        """Ask for a refresh of every partition."""
        self._redis.hset(self._key, "asked", now_ms)

    def asked(self) -> int:
        """Return when a refresh was last asked for, ms since the epoch; 0: never."""
        return int(self._redis.hget(self._key, "asked") or 0)

    def done(self) -> dict[Place, Done]:
        """Return the last refresh of each partition."""
        found: dict[Place, Done] = {}
        for name, value in self._redis.hgetall(self._key).items():
            topic, colon, number = name.decode().rpartition(":")
            if colon:
                found[topic, int(number)] = Done(*orjson.loads(value))
        return found

    def write(self, place: Place, done: Done) -> None:
        """Keep that a partition is done."""
        self._redis.hset(self._key, f"{place[0]}:{place[1]}", orjson.dumps(list(done)))


class Refresher:
    """Says which partitions are due, and reads them; who runs the agent sees them through between its batches.

    Args:
        kafka: where the topics are.
        log: what was asked for, and is done.
        schedule: never, weekly, biweekly or monthly.
        fetch_schema: schema of a registry id (`Registry.schema`).
        clock: the wall clock, s since the epoch.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        log: RefreshLog,
        schedule: str,
        fetch_schema: Callable[[int], Any],
        stage: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka, self._log, self._schedule, self._clock = kafka, log, schedule, clock
        self._fetch_schema, self._stage = fetch_schema, stage
        self._came: set[tuple[str, bytes | None]] | None = None

    def due(self, places: Collection[Place]) -> dict[Place, int]:
        """Return which of these partitions are due, each with the request that it answers.

        One that was never seen is due a schedule's length from now: what is new is encoded as it comes.
        """
        asked, known, now_ms = self._log.asked(), self._log.done(), int(self._clock() * 1000)
        found: dict[Place, int] = {}
        for place in places:
            last = known.get(place)
            if last is None:
                last = known[place] = Done(0, now_ms, 0, 0.0)
                self._log.write(place, last)
            if asked > last.asked_ms or due(self._schedule, last.at_ms, now_ms):
                found[place] = max(asked, last.asked_ms)
        if places:
            REFRESHED.labels(self._stage).set(min(known[each].at_ms for each in places) / 1000)
        return found

    def came(self, messages: Iterable[Any]) -> None:
        """Say that the agent sees changes through: from now on it knows better than a refresh of their keys."""
        if self._came is not None:
            self._came.update((each.topic, each.key) for each in messages)

    def lots(self, places: Collection[Place]) -> Iterator[list[Message]]:
        """Yield the newest record of each key of partitions, some at a time; begin to remember what comes."""
        self._came = set()
        for topic in dict.fromkeys(name for name, _ in places):
            numbers = {number for name, number in places if name == topic}
            wanted = self._newest(topic, numbers)
            lot: list[Message] = []
            for message in self._whole(topic, numbers):
                if (message.partition(), message.offset()) in wanted:
                    lot.append(_again(message))
                    if len(lot) == _LOT:
                        yield lot
                        lot = []
            if lot:
                yield lot

    def _newest(self, topic: str, numbers: set[int]) -> set[tuple[int, int]]:
        """Where the records stand that count: of each key the newest event time, ties go to the later one."""
        newest: dict[bytes | None, tuple[int, tuple[int, int]] | None] = {}
        decoder = Decoder.of_topic(topic, self._fetch_schema)
        for message in self._whole(topic, numbers):
            if message.value() is None:
                newest[message.key()] = None
                continue
            with contextlib.suppress(ContractError):  # its dead letter was kept when it came
                record = valid(topic, decoder.decode(message.value()))
                split(topic, (message.key() or b"").decode(errors="replace"), record)
                time_ms = record["event_time"]
                known = newest.get(message.key())
                if known is None or time_ms >= known[0]:
                    newest[message.key()] = time_ms, (message.partition(), message.offset())
        return {each[1] for each in newest.values() if each is not None}

    def still(self, lot: Sequence[Message]) -> list[Message]:
        """Return those of a lot whose key did not come meanwhile; for the thread that sees batches through."""
        came = self._came or set()
        return [each for each in lot if (each.topic, each.key) not in came]

    def finish(self, places: Mapping[Place, int], records: int, seconds: float) -> None:
        """Keep that partitions are done, each for its request; the records and seconds are of all together."""
        self._came = None
        for place, asked_ms in places.items():
            self._log.write(place, Done(asked_ms, int(self._clock() * 1000), records, seconds))

    def _whole(self, topic: str, numbers: set[int]) -> Iterator[Any]:
        with contextlib.closing(WholeTopic(self._kafka, topic, f"dealeriq-{self._stage}-refresh")) as whole:
            for message in whole.records(_READ_S):
                if message.partition() in numbers:
                    yield message


def _again(message: Any) -> Message:
    return Message(
        message.topic(), message.partition(), message.offset(), message.timestamp()[1], message.key(),
        message.value(), message.headers() or (),
    )  # fmt: skip
