"""What the label view knows, in Redis: chats lately seen, feedback that waits for its chat, and the position.

Keys, after the project (`dealeriq`):

- `:subject:<kind>/<id>`: JSON [dealer_id, label]; expires `keep_days` after it was read
- `:waiting:<kind>/<id>`: hash of event_id → the feedback message (`HeldMessage`)
- `:waiting`: sorted set of JSON [`<kind>/<id>`, event_id] by when its wait ends, ms since the epoch
- `:position:label-view`: hash of `topic:partition` → next offset
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streams.labels.label import Subject
from streams.labels.message import HeldMessage
from streams.views.positioned import PositionedStore

__all__ = ["Changes", "LabelStore", "Waiting"]

_DUE_AT_ONCE = 1_000


class Waiting(NamedTuple):
    """A feedback that waits: the name of its subject and its own id."""

    subject: str
    event_id: str

    @property
    def member(self) -> str:
        """How the sorted set names it."""
        return json.dumps(self, separators=(",", ":"), ensure_ascii=False)


@dataclass
class Changes:
    """What one batch does to the store."""

    subjects: dict[str, Subject] = field(default_factory=dict)
    held: dict[Waiting, HeldMessage] = field(default_factory=dict)
    ended: set[Waiting] = field(default_factory=set)


class LabelStore(PositionedStore):
    """Reads and writes through a `redis.Redis` whose answers are bytes; redis errors pass through.

    Args:
        redis: the client; one server, not a cluster.
        project: first part of every key.
        keep_days: how long a subject is known, and how long feedback waits for one.
        clock: the wall clock, s since the epoch.
    """

    def __init__(
        self, redis: Any, project: str, keep_days: float, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(redis, project, "label-view")
        self._clock = clock
        self._keep_ms = max(1_000, round(keep_days * 86_400_000))
        self._waiting = f"{project}:waiting"

    def look(
        self, subjects: Iterable[str], arrived: Iterable[str]
    ) -> tuple[dict[str, Subject], dict[Waiting, HeldMessage]]:
        """Return which `subjects` are known, and what waits for those that `arrived`; one round trip."""
        wanted, come = list(subjects), list(arrived)
        if not wanted and not come:
            return {}, {}
        pipeline = self.redis.pipeline(transaction=False)
        for name in wanted:
            pipeline.get(self._subject_key(name))
        for name in come:
            pipeline.hgetall(self._waiting_key(name))
        found = pipeline.execute()
        known = {
            name: Subject(*json.loads(value))
            for name, value in zip(wanted, found[: len(wanted)], strict=True)
            if value is not None
        }
        waiting = {
            Waiting(name, identity.decode()): HeldMessage.load(packed)
            for name, held in zip(come, found[len(wanted) :], strict=True)
            for identity, packed in held.items()
        }
        return known, waiting

    def due(self) -> dict[Waiting, HeldMessage]:
        """Return feedback whose wait is over, a thousand at most."""
        members = self.redis.zrangebyscore(self._waiting, 0, self._now_ms(), start=0, num=_DUE_AT_ONCE)
        if not members:
            return {}
        over = [Waiting(*json.loads(member)) for member in members]
        pipeline = self.redis.pipeline(transaction=False)
        for each in over:
            pipeline.hget(self._waiting_key(each.subject), each.event_id)
        found = zip(over, pipeline.execute(), strict=True)
        return {each: HeldMessage.load(packed) for each, packed in found if packed is not None}

    def waiting(self) -> int:
        """Return how many feedbacks wait."""
        return int(self.redis.zcard(self._waiting))

    def commit(self, changes: Changes, behind: Mapping[tuple[str, int], int]) -> None:
        """Store all changes and move the positions to `behind`, in one step. It may be repeated.

        A subject that is known stays as it was: the first reading counts, so a repeat gives the same label.
        Raises StoreReplacedError where the store does not hold the position that this process left there.
        """
        self.commit_queued(lambda pipeline: self._queue(pipeline, changes), behind)

    def _queue(self, pipeline: Any, changes: Changes) -> None:
        for name, subject in changes.subjects.items():
            value = json.dumps(subject, separators=(",", ":"))
            pipeline.set(self._subject_key(name), value, px=self._keep_ms, nx=True)
        until = self._now_ms() + self._keep_ms
        for each, message in changes.held.items():
            pipeline.hsetnx(self._waiting_key(each.subject), each.event_id, message.dump())
        if changes.held:
            pipeline.zadd(self._waiting, {each.member: until for each in changes.held}, nx=True)
        for each in changes.ended:
            pipeline.hdel(self._waiting_key(each.subject), each.event_id)
        if changes.ended:
            pipeline.zrem(self._waiting, *(each.member for each in changes.ended))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _subject_key(self, name: str) -> str:
        return f"{self.project}:subject:{name}"

    def _waiting_key(self, name: str) -> str:
        return f"{self.project}:waiting:{name}"
