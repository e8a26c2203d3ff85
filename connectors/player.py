"""Play a recorded year into Kafka: several topics together, in event-time order, each event exactly once.

The merged order of the events is the same every time, so one number says how far a player came. It commits
in the ledger with the events; a player that is killed and started again goes on behind the last committed
event."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Literal

import numpy as np
import polars as pl

from connectors import demo_data
from connectors.kafka import ensure_topics
from connectors.ledger import LedgerEntry
from connectors.messages import Messages, MessageWriter
from connectors.outbox import Outbox, OutboxInterruptedError
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RegistrySettings
from schemas.errors import DealerIQError
from schemas.ids import event_id

__all__ = ["DEFAULT_TOPICS", "PlayOptions", "PlayStats", "Player", "PlayerSettingsError", "Timeline"]

DEFAULT_TOPICS = ("dealers", "products", "promotions", "orders", "chats", "feedback")
Sources = Sequence[demo_data.Source]


class PlayerSettingsError(DealerIQError):
    """The player was asked for something it cannot do."""

    remedy = "See `dealeriq demo --help`."
    exit_code = 2


@dataclass(frozen=True)
class PlayOptions:
    """What to play and how fast.

    `speed`: event seconds a second, or "max". `rate`: events a second instead of a speed (reference data
    comes before, as fast as it goes). `orders`: stop after this many order lines (of other topics, what
    happened until then is played too); None plays all. `keep_time=False` moves event times so that the
    first event happens when the player first starts. `commit_s`: how long a transaction lasts, and so what
    it adds to freshness."""

    topics: tuple[str, ...] = DEFAULT_TOPICS
    speed: float | Literal["max"] = "max"
    rate: float | None = None
    orders: int | None = None
    keep_time: bool = True
    commit_s: float | None = None
    name: str = "demo"

    def __post_init__(self) -> None:
        unknown = [name for name in self.topics if name not in demo_data.TOPICS]
        if unknown or not self.topics:
            raise PlayerSettingsError(
                f"the demo has no data for {', '.join(unknown) or 'no topic'}; "
                f"it has {', '.join(demo_data.TOPICS)}"
            )
        for label, value in (("speed", self.speed), ("rate", self.rate), ("orders", self.orders)):
            if isinstance(value, int | float) and not value > 0:
                raise PlayerSettingsError(f"{label} is {value}, and must be above 0")

    @property
    def paced(self) -> bool:
        """True unless events go as fast as they can."""
        return self.rate is not None or self.speed != "max"


@dataclass(frozen=True)
class PlayStats:
    """How far the player is. Counts include earlier runs; `clock_ms` is the latest event time committed."""

    produced: dict[str, int]
    position: int
    total: int
    rate: float
    clock_ms: int | None
    finished: bool


class Timeline:
    """Several sources merged in event-time order; ties go to the source that stands first.

    A bound on order lines cuts the end and changes nothing before it, so a player may go on with another bound.
    """

    def __init__(self, sources: Sources, orders: int | None = None) -> None:
        self.sources = tuple(sources)
        times = np.concatenate([source.times for source in self.sources])
        owners = np.repeat(
            np.arange(len(self.sources), dtype=np.uint8), [len(source) for source in self.sources]
        )
        order = np.argsort(times, kind="stable")
        self.times = times[order]
        self.owners = owners[order]
        if orders is not None:
            names = [source.topic for source in self.sources]
            lines = (
                np.flatnonzero(self.owners == names.index("orders")) if "orders" in names else self.times[:0]
            )
            if orders <= len(lines):
                self.times, self.owners = (
                    self.times[: lines[orders - 1] + 1],
                    self.owners[: lines[orders - 1] + 1],
                )
        # Reference data stands before the first event that is not.
        ordinary = [i for i, source in enumerate(self.sources) if not source.reference]
        rest = np.flatnonzero(np.isin(self.owners, ordinary))
        self.reference = int(rest[0]) if len(rest) else len(self.owners)

    def __len__(self) -> int:
        return len(self.owners)

    def counts(self, position: int) -> list[int]:
        """Return how many events of each source stand before a position."""
        counts = np.bincount(self.owners[:position], minlength=len(self.sources))
        return [int(count) for count in counts]


@dataclass
class _Block:
    """Encoded events [start, stop) of the timeline, and how many of each source were sent."""

    start: int
    stop: int
    order: list[int]
    messages: list[Messages | None]
    sent: list[int] = field(default_factory=list)

    def take(self, stop: int) -> tuple[list[tuple[Messages, int]], list[int]]:
        """Return the parts and order of what is left before `stop`, and count it as sent."""
        first = self.start + sum(self.sent)
        order = self.order[first - self.start : stop - self.start]
        used = sorted(set(order))
        parts = [(messages, self.sent[i]) for i in used if (messages := self.messages[i]) is not None]
        for i in used:
            self.sent[i] += order.count(i)
        if len(used) > 1:
            index = {source: at for at, source in enumerate(used)}
            order = [index[source] for source in order]
        return parts, order


class Player:
    """Plays a timeline into Kafka until it ends or `stop` is set; then what was sent is committed.

    `on_stats` is called about once a second and at the end. Brokers that go away are waited for.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        registry: RegistrySettings,
        options: PlayOptions,
        on_stats: Callable[[PlayStats], None] | None = None,
        stop: Event | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.options = options
        self._kafka, self._registry = kafka, registry
        self._on_stats = on_stats or (lambda stats: None)
        self._stop = stop or Event()
        chosen = (
            sources
            if sources is not None
            else [
                demo_data.orders(options.orders) if name == "orders" else demo_data.source(name)
                for name in options.topics
            ]
        )
        self.timeline = Timeline(chosen, options.orders)
        parts = [part for source in self.timeline.sources for part in (source.topic, source.name)]
        self._fingerprint = event_id("player", options.name, "keep" if options.keep_time else "shift", *parts)
        self._ledger_id = f"player-{self._fingerprint}"
        self._position = 0
        self._shift_ms = 0
        self._started = (time.monotonic(), 0)

    def clock(self) -> int | None:
        """Return the latest event time that is committed, ms since the epoch; None before the first."""
        return int(self.timeline.times[self._position - 1]) + self._shift_ms if self._position else None

    def stats(self) -> PlayStats:
        """Return how far the player is."""
        names = [source.topic for source in self.timeline.sources]
        since, position = self._started
        elapsed = max(time.monotonic() - since, 1e-9)
        return PlayStats(
            produced=dict(zip(names, self.timeline.counts(self._position), strict=True)),
            position=self._position,
            total=len(self.timeline),
            rate=(self._position - position) / elapsed,
            clock_ms=self.clock(),
            finished=self._position >= len(self.timeline),
        )

    def play(self) -> PlayStats:
        """Play to the end, or until stopped. Raises OutboxFencedError when another player took over."""
        ensure_topics(self._kafka, [source.topic for source in self.timeline.sources] + ["imports"])
        ids = Registry(self._registry).register_all([source.topic for source in self.timeline.sources])
        writers = [
            MessageWriter(source.topic, ids[f"{source.topic}-value"], source.name)
            for source in self.timeline.sources
        ]
        wait_s = 0.2
        first = True
        while True:
            try:
                with self._open() as outbox:
                    if first:
                        self._started, first = (time.monotonic(), self._position), False
                    wait_s = 0.2
                    self._play(outbox, writers)
                break
            except OutboxInterruptedError:
                if self._stop.wait(wait_s):
                    break
                wait_s = min(wait_s * 2, 5.0)
        stats = self.stats()
        self._on_stats(stats)
        return stats

    def _open(self) -> Outbox:
        outbox = Outbox(self._kafka, self._registry, self._ledger_id, linger_ms=2 if self.options.paced else 20)
        entry = outbox.entry
        self._position = min(entry.rows_read, len(self.timeline)) if entry else 0
        if not self.options.keep_time:
            # The first start decides where the year lies; its entry keeps it for every later one.
            known = entry.source.rpartition("+")[2] if entry else ""
            now = time.time_ns() // 1_000_000
            self._shift_ms = int(known) if known else now - int(self.timeline.times[0])
        return outbox

    def _entry(self) -> LedgerEntry:
        source = "player" if self.options.keep_time else f"player+{self._shift_ms}"
        topics = ",".join(source.topic for source in self.timeline.sources)
        done = self._position >= len(self.timeline)
        return LedgerEntry(
            self._ledger_id, topics, source, self._fingerprint, self._position, self._position, 0, done
        )

    def _play(self, outbox: Outbox, writers: list[MessageWriter]) -> None:
        commit_s = self.options.commit_s or (0.05 if self.options.paced else 0.5)
        begun, begun_at = time.monotonic(), self._position
        commit_at, stats_at = begun + commit_s, begun + 1.0
        sent = self._position
        for block in self._blocks(writers):
            while sent < block.stop:
                now = time.monotonic()
                if begun_at < self.timeline.reference <= sent:
                    begun, begun_at = (
                        now,
                        sent,
                    )  # the pace begins with the first event that is not reference data
                target = min(self._target(begun_at, now - begun), block.stop, sent + 5_000)
                if target > sent:
                    outbox.send_mixed(*block.take(target))
                    sent = target
                stopping = self._stop.is_set()
                now = time.monotonic()
                if sent > self._position and (now >= commit_at or stopping or sent == len(self.timeline)):
                    before, self._position = self._position, sent
                    try:
                        outbox.commit(self._entry())
                    except BaseException:
                        self._position = before
                        raise
                    now = time.monotonic()
                    commit_at = now + commit_s
                if now >= stats_at:
                    self._on_stats(self.stats())
                    stats_at = now + 1.0
                if stopping:
                    return
                if self.options.paced and sent < block.stop:
                    self._stop.wait(min(0.005, commit_s / 4))

    def _target(self, begun_at: int, elapsed_s: float) -> int:
        """Return the position that should be reached `elapsed_s` after the player stood at `begun_at`."""
        if not self.options.paced or begun_at < self.timeline.reference:
            return len(self.timeline)
        if self.options.rate is not None:
            return begun_at + int(self.options.rate * elapsed_s)
        assert self.options.speed != "max"
        if begun_at >= len(self.timeline):
            return begun_at
        clock = self.timeline.times[begun_at] + elapsed_s * 1000 * self.options.speed
        return int(np.searchsorted(self.timeline.times, clock, side="right"))

    def _blocks(self, writers: list[MessageWriter]) -> Iterator[_Block]:
        # Small blocks when paced: encoding one must not be felt as a pause.
        rows = 2_000 if self.options.paced else 20_000
        done = self.timeline.counts(self._position)
        for start in range(self._position, len(self.timeline), rows):
            stop = min(start + rows, len(self.timeline))
            owners = self.timeline.owners[start:stop]
            counts = np.bincount(owners, minlength=len(done)).tolist()
            messages: list[Messages | None] = []
            for i, (source, writer) in enumerate(zip(self.timeline.sources, writers, strict=True)):
                messages.append(
                    self._encode(source, writer, done[i], done[i] + counts[i]) if counts[i] else None
                )
                done[i] += counts[i]
            yield _Block(start, stop, owners.tolist(), messages, [0] * len(done))

    def _encode(self, source: demo_data.Source, writer: MessageWriter, start: int, stop: int) -> Messages:
        frame = source.frame(start, stop)
        if self._shift_ms:
            times: list[Any] = [
                name for name in frame.columns if name in ("event_time", "start_time", "end_time")
            ]
            frame = frame.with_columns(pl.col(times) + self._shift_ms)
        return writer.write(frame)
