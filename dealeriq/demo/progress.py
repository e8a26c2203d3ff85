"""How far a running system is: counts in and out per stage, lag, freshness, and whether it is at rest."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from dealeriq.demo import PLAYED
from dealeriq.flink import job_counters
from dealeriq.system import System
from schemas.errors import DealerIQError
from streams.verify.broker import Broker

__all__ = ["Playing", "Reading", "SettleTimeoutError", "read", "settle"]

_LABEL = re.compile(r'(\w+)="([^"]*)"')
_QUIET_S = 2.0
_QUIET_EMBEDDING_S = 10.0  # a batch of texts is encoded in one go
_VIEW = "feature-view"
_DERIVED = ("chats.enriched", "chats.dlq", "labels", "feedback.dlq", "embeddings")


class SettleTimeoutError(DealerIQError):
    """The system did not come to rest in time after the last event was played."""

    remedy = "Look at the logs of the processes that are named above, then start again: it goes on from there."
    exit_code = 4


@dataclass(frozen=True)
class Reading:
    """One look at every meter. Freshness in seconds from producing to readable, as quantiles of all events."""

    at_s: float
    produced: dict[str, int] = field(default_factory=dict)
    stages: dict[str, dict[str, int]] = field(default_factory=dict)
    flink: dict[str, int] = field(default_factory=dict)
    lag: int = 0  # tiles that the feature view has still to read
    freshness: dict[str, float] = field(default_factory=dict)
    clock_ms: int | None = None


def read(system: System) -> Reading:
    """Look at every process's metrics and at Flink's counters."""
    stages: dict[str, dict[str, int]] = {}
    buckets: dict[float, float] = {}
    lag, clock = 0, None
    for process, samples in system.meters().items():
        for sample, value in samples.items():
            name, labels = sample.partition("{")[0], dict(_LABEL.findall(sample))
            if name == "dealeriq_stage_records_total":
                stages.setdefault(labels["stage"], {})[labels["outcome"]] = int(value)
            elif name == "dealeriq_stage_lag_records" and labels["stage"] == _VIEW:
                # The agents' lag counts the transaction markers at the end of a topic, and so never gets to 0.
                lag += int(value)
            elif name == "dealeriq_freshness_seconds_bucket" and labels.get("stage") == _VIEW:
                buckets[float(labels["le"])] = value
            elif name == "dealeriq_stage_event_time_seconds" and process == _VIEW:
                clock = int(value * 1000)
    stages.pop("player", None)
    produced = played(system)
    try:
        flink = job_counters(system.supervisor.settings)
    except DealerIQError:
        flink = {}
    quantiles = {
        f"p{int(q * 100)}_s": found for q in (0.5, 0.99) if (found := _quantile(buckets, q)) is not None
    }
    return Reading(time.monotonic(), produced, stages, flink, lag, quantiles, clock)


class Playing(threading.Thread):
    """Watches the player beside whatever else starts: when its first events were out (`began`), and the end."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self._system, self._before = system, sum(played(system).values())
        self.began = self.ended = time.monotonic()

    def run(self) -> None:
        """Look until the player is done; its process must have been started."""
        player = self._system.supervisor.child("player")
        while player.state not in ("done", "failed") and sum(played(self._system).values()) == self._before:
            time.sleep(0.02)
        self.began = time.monotonic()
        while player.state not in ("done", "failed"):
            time.sleep(0.02)
        self.ended = time.monotonic()


def played(system: System) -> dict[str, int]:
    """Return what the player has produced in all its runs, by topic: it outlives the process."""
    try:
        counts: dict[str, int] = json.loads((system.supervisor.data_dir / PLAYED).read_text())
    except (OSError, ValueError):
        return {}
    return counts


def settle(system: System, progress: Callable[[str], None], wait_s: float = 900.0) -> Reading:
    """Wait until every event is in every store: each chat is enriched, nothing is left to read, nothing moves,
    and the lake has every record.

    As long as chats are enriched it waits on, however slow the machine. Raises SettleTimeoutError `wait_s`
    after the last of them.
    """
    deadline = time.monotonic() + wait_s
    enriched = -1
    quiet_since, told = time.monotonic(), 0.0
    before: object = None
    behind = 0
    broker = Broker(system.supervisor.settings.kafka)
    while (moment := time.monotonic()) < deadline:
        reading = read(system)
        ends = {topic: sum(broker.ends(topic).values()) for topic in _DERIVED}
        chats = reading.produced.get("chats", 0)
        done = ends["chats.enriched"] + ends["chats.dlq"]
        if enriched < done < chats:
            deadline = moment + wait_s
        enriched = done
        moved = {stage: counts for stage, counts in reading.stages.items() if stage != "http"}
        now = (reading.flink, moved, ends)
        whole = all(status.state in ("ready", "done", "given") for status in system.supervisor.status())
        quiet_s = _QUIET_EMBEDDING_S if "embed-agent" in reading.stages else _QUIET_S
        if now != before or reading.lag or done < chats or not whole:
            before, quiet_since = now, moment
        elif moment - quiet_since >= quiet_s and not (behind := lake_behind(system)):
            return reading
        if moment - told >= 5:
            waiting = f", {behind:,} to come to the lake" if behind else ""
            if "embed-agent" in reading.stages:  # a whole catalogue takes minutes
                waiting = f", {sum(reading.stages['embed-agent'].values()):,} products embedded{waiting}"
            progress(
                f"settling: {done:,} of {chats:,} chats enriched, {reading.lag:,} records to read{waiting}"
            )
            told = moment
        time.sleep(0.3)
    raise SettleTimeoutError(f"events were still moving after {wait_s:.0f} s")


def lake_behind(system: System) -> int:
    """Return how many records are not in the lake yet."""
    from connectors.lake import LakeTableMissingError, default_topics, lake_at, positions
    from streams.verify.lake_records import count_records

    settings = system.supervisor.settings
    broker, lake = Broker(settings.kafka), lake_at(settings.lake, system.supervisor.data_dir)
    count = 0
    for topic in settings.lake.topics or default_topics():
        ends, held = broker.ends(topic), {}
        with suppress(LakeTableMissingError):
            held = positions(lake, topic)
        count += count_records(broker, topic, held, ends)
    return count


def _quantile(buckets: dict[float, float], q: float) -> float | None:
    """Interpolate a quantile in cumulative buckets, as Prometheus does."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted, low, below = q * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / max(buckets[bound] - below, 1e-9)
        low, below = bound, buckets[bound]
    return low
