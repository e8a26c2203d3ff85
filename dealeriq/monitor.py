"""The watch over served models: windows that closed are judged, alarms and schedules ask for trainings.

It runs beside the trainer, in its process. Judging is a child in the training environment, started only when
the lake has new scores or outcomes; between two looks nothing is held but a few consumers. What was judged and
asked is in the log (`model.monitors`, `retraining.requests`), so a restart goes on where it was, and a repeat
after a crash has the same ids.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from confluent_kafka import TopicPartition
from prometheus_client import Counter, Gauge

from connectors.kafka import consumer, ensure_topics
from connectors.whole import end_offset
from dealeriq.settings import Settings
from dealeriq.training import child
from dealeriq.watching import Stillness, keep_looking
from models.canary import next_step
from models.lifecycle import LifecycleError, ModelState
from models.lifecycle_log import LifecycleLog
from models.monitoring.alarms import Alarm, alarms, watched
from models.monitoring.observation import Observation, ObservationLog
from models.requests import RequestLog, request_id, send
from models.schedule import due
from models.specs import specs
from schemas.catalogue import topic
from streams.metrics import REGISTRY, StageMeters

__all__ = ["Monitor"]

_VALUE = Gauge(
    "dealeriq_monitor_value", "What a monitor saw of the champion in the last window.", ["model", "monitor"],
    registry=REGISTRY,
)  # fmt: skip
_LIMIT = Gauge(
    "dealeriq_monitor_limit", "What a monitor's value may be at most.", ["model", "monitor"], registry=REGISTRY
)
_ALARMS = Counter(
    "dealeriq_monitor_alarms", "Windows in which a monitor raised an alarm.", ["model", "monitor"],
    registry=REGISTRY,
)  # fmt: skip


class Monitor:
    """One watch of a system; `run` ends when `stop` is set. `clock` is the wall clock, s since the epoch."""

    def __init__(
        self, settings: Settings, stop: threading.Event, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._stop, self._clock = settings, stop, clock
        self._meters = StageMeters("monitor")
        ensure_topics(settings.kafka, sorted({"scores", *(each.label.topic for each in specs().values())}))
        self._ends = consumer(settings.kafka, "dealeriq-monitor")
        self._moving = Stillness()

    def close(self) -> None:
        """Let go of the connection."""
        self._ends.close()

    def run(self) -> None:
        """Look every `monitors.every_s`; what is away is tried again the next time."""
        kafka, registry = self._settings.kafka, self._settings.registry
        with (
            contextlib.closing(self),
            LifecycleLog(kafka, registry) as log,
            ObservationLog(kafka, registry) as seen,
            RequestLog(kafka, registry) as asked,
        ):
            every_s = self._settings.monitors.every_s
            keep_looking(lambda: self.look(log, seen, asked), every_s, self._meters, self._stop)

    def look(self, log: LifecycleLog, seen: ObservationLog, asked: RequestLog) -> list[Observation]:
        """Judge what closed and ask for what is due; return what was seen. Raises DealerIQError."""
        log.catch_up()
        states = [each for name, each in log.registry.models.items() if each.champion and name in specs()]
        known = seen.catch_up()
        fresh = self._judged([each for each in states if _is_watched(each.name)], known)
        for each in fresh:
            seen.write(each)
        asked.catch_up()
        known = seen.catch_up()
        self._steps(log, states, known)
        self._alarms(known, asked)
        self._schedules(states, asked)
        return fresh

    def _judged(self, states: list[ModelState], known: list[Observation]) -> list[Observation]:
        if not states or not self._moved(states):
            return []
        from connectors.lake import lake_at

        lake = lake_at(self._settings.lake, self._settings.data_dir)
        job = {
            "lake": lake.url, "lake_options": dict(lake.options),
            "settings": self._settings.monitors.model_dump(),
            "confidence": self._settings.canary.confidence,
            "watched": [asdict(each) for state in states for each in watched(state, known)],
        }  # fmt: skip
        found: dict[str, Any] = child(
            "monitoring.watch", job, most_s=self._settings.monitors.most_s, stop=self._stop
        )
        for problem in found["problems"]:
            self._meters.count("unwatched")
            self._say(problem)
        fresh = [Observation(**each) for each in found["observations"]]
        for each in fresh:
            self._tell(each)
        return fresh

    def _moved(self, states: list[ModelState]) -> bool:
        """Whether scores or outcomes came since the last looks; the lake may follow one look later."""
        kafka = self._settings.kafka
        places = [
            TopicPartition(name, n)
            for name in sorted({"scores", *(specs()[state.name].label.topic for state in states)})
            for n in range(kafka.partitions_of(topic(name)))
        ]
        now = (
            [(state.name, state.position) for state in states],
            [end_offset(self._ends, place) for place in places],
        )
        return self._moving.moved(now)

    def _tell(self, seen: Observation) -> None:
        self._meters.count("judged" if seen.value is not None else "not_judged")
        self._meters.event_time(seen.window_end)
        if seen.role == "champion":
            for gauge, value in ((_VALUE, seen.value), (_LIMIT, seen.limit)):
                if value is not None:
                    gauge.labels(seen.model, seen.monitor).set(value)
        if seen.alarm:
            _ALARMS.labels(seen.model, seen.monitor).inc()
            self._say(f"{seen.model} {seen.model_version}: {seen.monitor}: {seen.text}")

    def _steps(self, log: LifecycleLog, states: Iterable[ModelState], seen: list[Observation]) -> None:
        """Promote, withdraw or roll back where the comparison on live traffic says so."""
        for state in states:
            step = next_step(state, seen, self._settings.canary)
            if step is None:
                continue
            version = state.versions[step.version]
            try:
                done = log.write(
                    state.name, step.version, step.stage, step.text, cause=step.cause, reason=step.reason,
                    artifact=version.artifact, run_id=version.run_id, sha256=version.sha256,
                )  # fmt: skip
            except LifecycleError as error:  # somebody else decided: the next look sees it
                self._meters.error(error)
                self._say(error.told)
                continue
            self._meters.count(f"{step.stage}_{step.reason}")
            self._say(f"{state.name} {step.version} is {done.stage} ({step.reason}): {step.text}")

    def _alarms(self, seen: list[Observation], asked: RequestLog) -> None:
        cool_down_ms = round(self._settings.monitors.cool_down_days * 86_400_000)
        newest: dict[str, Alarm] = {each.model: each for each in alarms(seen, cool_down_ms)}
        for model, each in newest.items():
            self._ask(asked, model, "drift", each.text, each.cause, each.evidence)

    def _schedules(self, states: Iterable[ModelState], asked: RequestLog) -> None:
        now_ms = int(self._clock() * 1000)
        for state in states:
            last_ms = max(
                asked.asked_ms.get((state.name, "schedule"), 0),
                *(each.registered_ms for each in state.versions.values()),
            )
            schedule = self._settings.monitors.schedule
            if due(schedule, last_ms, now_ms):
                self._ask(asked, state.name, "schedule", f"trained {schedule}", f"{schedule} after {last_ms}")

    def _ask(
        self, asked: RequestLog, model: str, reason: str, text: str, cause: str,
        evidence: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        if request_id(model, reason, cause) in asked.ids:
            return
        kafka, registry = self._settings.kafka, self._settings.registry
        at_ms = int(self._clock() * 1000)
        send(kafka, registry, model, reason, text, evidence=evidence, cause=cause, at_ms=at_ms)
        self._meters.count(f"asked_{reason}")
        self._say(f"{model}: asked for a training ({reason}): {text}")

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _is_watched(name: str) -> bool:
    """Whether a model's scores, or what it learns as it goes, are looked at."""
    return specs()[name].in_stream or bool(specs()[name].lessons)
