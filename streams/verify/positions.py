"""Positions: what each part says it has done, and whether these can all be true.

The common position of a source topic is what the Flink job has committed: at a checkpoint every event before it
is in tiles, and those tiles are in the tile topic. So: commits first, the tile topics' ends after, then the
feature view's own position at or behind those ends: every event up to the commits is in the store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from features.plan import Plan
from streams.flink.job import jobs_of
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding
from streams.verify.log import TopicReader

__all__ = [
    "CLOCK_KEY",
    "LABEL_VIEW",
    "LOOKED_UP",
    "VIEW_GROUP",
    "Common",
    "Positions",
    "clock_findings",
    "held_feedback",
    "held_positions",
]

CLOCK_KEY = "dealeriq:clock"

VIEW_GROUP = "dealeriq-feature-view"
LABEL_VIEW = "label-view"
LOOKED_UP = frozenset({(LABEL_VIEW, "chats.enriched")})
"""What is read only to know what others are about: no event of it need become one."""
_LOOK_S = 0.1
_STILL_S = 10.0
_COMMIT_S = 5.0


def held_positions(store: Any, view: str, topic: str) -> Ends:
    """Return the position of a view in a topic, as the store holds it."""
    found: Ends = {}
    for name, value in store.hgetall(f"dealeriq:position:{view}").items():
        of, _, partition = name.decode().rpartition(":")
        if of == topic:
            found[int(partition)] = int(value)
    return found


def held_feedback(store: Any) -> set[str]:
    """Return the ids of feedback that waits for what it is about."""
    return {json.loads(member)[1] for member in store.zrange("dealeriq:waiting", 0, -1)}


@dataclass
class Common:
    """The next offset by source topic and partition up to which everything must be in the store."""

    offsets: dict[str, Ends] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    reached: bool = True


class Positions:
    """Reads the positions of one running system."""

    def __init__(self, broker: Broker, store: Any, plan: Plan) -> None:
        self._broker, self._store, self._plan = broker, store, plan

    def flink(self) -> dict[str, Ends]:
        """Return what the Flink jobs have committed of each source topic."""
        return {
            topic: self._broker.committed(f"dealeriq-{job}", topic)
            for job, views in jobs_of(self._plan).items()
            for topic in dict.fromkeys(view.source_topic for view in views)
        }

    def stored(self) -> dict[str, Ends]:
        """Return the position of each tile topic that stands in the store."""
        found: dict[str, Ends] = {}
        for view in self._plan.views.values():
            held = found.setdefault(view.topic, {})
            held |= held_positions(self._store, view.name, view.topic)
        return found

    def common(self, want: Mapping[str, Mapping[int, int]], wait_s: float, pause: Callable[[], None]) -> Common:
        """Find the common position, waiting up to `wait_s` for commits to reach what is wanted of each topic.

        While the feature view stands still before the tiles of the common position, completeness cannot be
        proved: that is a finding, and the position is then nothing.
        """
        deadline = time.monotonic() + wait_s
        while True:
            offsets = self.flink()
            whole = all(offsets[t].get(p, 0) >= o for t, by in want.items() for p, o in by.items())
            if whole or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S * 5)
        ends = {view.topic: self._broker.ends(view.topic) for view in self._plan.views.values()}
        result = Common(offsets)
        moved, before = time.monotonic(), None
        while True:
            stored = self.stored()
            groups = {topic: self._broker.committed(VIEW_GROUP, topic) for topic in ends}
            behind = {
                (topic, partition): (end, stored[topic].get(partition, 0))
                for topic, by in ends.items()
                for partition, end in by.items()
                if max(stored[topic].get(partition, 0), groups[topic].get(partition, 0)) < end
            }
            if not behind:
                return result
            if behind != before:
                before, moved = behind, time.monotonic()
            if time.monotonic() - moved > _STILL_S:
                result.offsets = {topic: {} for topic in offsets}
                result.reached = False
                for (topic, partition), (end, held) in sorted(behind.items()):
                    result.findings.append(_finding("online", topic, partition, f"{end} or more", held))
                return result
            pause()
            time.sleep(_LOOK_S)

    def findings(self, before: Mapping[str, Mapping[int, int]]) -> Iterator[Finding]:
        """Name positions that cannot be right.

        One in the store lies within its topic, not before what its view has committed, and not ahead of what
        the view commits within seconds: `before` are the stored positions of a while ago.
        """
        groups = self._view_commits()
        stored = self.stored()
        for topic, by in groups.items():
            ends = self._broker.ends(topic)
            for partition in sorted(by | stored[topic]):
                position = stored[topic].get(partition)
                least, most = by.get(partition, 0), ends.get(partition, 0)
                if (position or 0) < least:
                    yield _finding("online", topic, partition, f"{least} or more", position)
                elif (position or 0) > most:
                    yield _finding("online", topic, partition, f"{most} or less", position)
        for topic, partition, found, expected in self._ahead(before):
            if found <= self._broker.ends(topic).get(partition, 0):
                yield _finding("online", topic, partition, f"{expected}, as the view has committed", found)
        for topic, by in self.flink().items():
            ends = self._broker.ends(topic)
            for partition, offset in by.items():
                if offset > ends.get(partition, 0):
                    yield _finding("topic", topic, partition, f"{ends.get(partition, 0)} or less", offset)

    def _view_commits(self) -> dict[str, Ends]:
        return {
            view.topic: self._broker.committed(VIEW_GROUP, view.topic) for view in self._plan.views.values()
        }

    def _ahead(self, before: Mapping[str, Mapping[int, int]]) -> list[tuple[str, int, int, int]]:
        """Positions that a living view does not come to commit: nobody applied what they claim."""
        deadline = time.monotonic() + _COMMIT_S
        beat = self._broker.beat(VIEW_GROUP)
        while True:
            groups = self._view_commits()
            ahead = [
                (topic, partition, position, groups[topic].get(partition, 0))
                for topic, by in before.items()
                for partition, position in by.items()
                if position > groups[topic].get(partition, 0)
            ]
            if not ahead:
                return []
            if time.monotonic() > deadline:
                return ahead if self._broker.beat(VIEW_GROUP) != beat else []
            time.sleep(_LOOK_S * 3)


def _finding(store: Any, topic: str, partition: int, expected: str, found: Any) -> Finding:
    return Finding("position", store, topic, (), f"partition {partition}", "", expected, found)


def clock_findings(
    readers: Mapping[str, TopicReader], common: Mapping[str, Ends], before: int, after: int
) -> Iterator[Finding]:
    """Name an event clock that is not the latest event time, of those that are not in the future.

    `before` was read before the log's end, so it is in the log; `after` behind the common position.
    """
    latest = 0
    least = 0
    for topic, reader in readers.items():
        events = reader.events()
        if not len(events):
            continue
        latest = max(latest, int(events["event_time"].max()))  # type: ignore[arg-type]
        upto = common.get(topic, {})
        for partition, offset in upto.items():
            mine = events.filter((pl.col("_partition") == partition) & (pl.col("_offset") < offset))
            usual = mine.filter(pl.col("event_time") <= pl.col("_timestamp"))
            least = max(least, int(usual["event_time"].max() or 0))  # type: ignore[arg-type]
    if before > latest or after < least:
        yield Finding("clock", "online", CLOCK_KEY, (), "", "", max(least, latest), after)
