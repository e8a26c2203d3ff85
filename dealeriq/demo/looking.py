"""Looking on at the loop: what its topics say, when it was seen, and how long each step took."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from connectors.redis import connect
from models.lifecycle import Decision, ModelState
from models.lifecycle_log import LifecycleLog
from models.monitoring.observation import Observation, ObservationLog
from models.requests import TOPIC as REQUESTS
from models.requests import RequestLog
from streams.scoring.store import ScoreStore
from streams.verify.broker import Broker

if TYPE_CHECKING:
    from dealeriq.system import System

__all__ = ["Happened", "Onlooker"]

_GROUP = "dealeriq-trainer"


@dataclass(frozen=True)
class Happened:
    """One step as it was seen: seconds since the beginning, event time in ms (0 where it has none)."""

    at_s: float
    what: str
    event_ms: int
    text: str


class Onlooker:
    """Reads `model.lifecycle`, `model.monitors` and `retraining.requests` of one model; a context manager."""

    def __init__(self, system: System, model: str, tell: Callable[[Happened], None]) -> None:
        settings = system.supervisor.settings
        self._system, self._settings, self._model, self._tell = system, settings, model, tell
        self._log = LifecycleLog(settings.kafka, settings.registry)
        self._seen = ObservationLog(settings.kafka, settings.registry)
        self._asked = RequestLog(settings.kafka, settings.registry)
        self._broker = Broker(settings.kafka)
        self._store = ScoreStore(connect(settings.redis), settings.features.project)
        self._began = time.monotonic()
        self._known: set[str] = set()
        self._orders_s = self._asked_s = self._began
        self._promoted_s: dict[int, float] = {}
        self._served_s: dict[int, float] = {}
        self.steps: list[Happened] = []
        self.observations: list[Observation] = []
        self.seconds: dict[str, list[float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._log, self._seen, self._asked):
            each.close()

    @property
    def state(self) -> ModelState:
        """The model as the log has it."""
        return self._log.registry.state(self._model)

    @property
    def position(self) -> tuple[int, int]:
        """How much has happened: it moves when a step is taken or a training is asked for."""
        return len(self._log.registry.history), len(self._asked.ids)

    def note(self, what: str, event_ms: int, text: str) -> None:
        """Keep a step, and tell it."""
        step = Happened(round(time.monotonic() - self._began, 1), what, event_ms, text)
        self.steps.append(step)
        self._tell(step)

    def asked(self, event_ms: int, text: str) -> None:
        """A person asks for a training, which begins now."""
        self._asked_s = time.monotonic()
        self.note("asked", event_ms, text)

    def came(self) -> None:
        """Orders of a stretch are in Kafka now."""
        self._orders_s = time.monotonic()

    def count(self, event_ms: int) -> None:
        """Tell how many scores and insights there are."""
        scores, insights = (sum(self._broker.ends(each).values()) for each in ("scores", "insights"))
        self.note("scored", event_ms, f"{scores:,} scores, {insights:,} insights until now")

    def look(self) -> None:
        """Read what was written since the last look."""
        now = time.monotonic()
        for each in self._seen.catch_up():
            if each.model == self._model and each.event_id not in self._known:
                self._known.add(each.event_id)
                self.observations.append(each)
                if each.alarm:
                    self._took("orders to alarm", now - self._orders_s)
                    self.note("alarm", each.window_end, f"{each.monitor}: {each.text}")
                if each.monitor in ("measured", "canary") and each.value is not None:
                    self.note(each.monitor, each.window_end, f"{each.role} {each.model_version}: {each.text}")
        before = set(self._asked.ids)
        self._asked.catch_up()
        for _ in self._asked.ids - before:
            self._asked_s = now
            self.note("asked", 0, "a training was asked for")
        for step in self._log.catch_up():
            if step.model == self._model:
                self._decided(step, now)
        if self._promoted_s:
            self.served()

    def _decided(self, step: Decision, now: float) -> None:
        if step.stage == "registered":
            self._took("request to trained", now - self._asked_s)
        if step.stage == "champion" and not step.void:
            self._promoted_s[step.at] = now
        void = f" [counts for nothing: {step.void}]" if step.void else ""
        self.note(step.stage, 0, f"{step.version} ({step.reason}): {step.text}{void}")

    def idle(self) -> bool:
        """Whether the trainer has done every request."""
        ends = self._broker.ends(REQUESTS)
        done = self._broker.committed(_GROUP, REQUESTS)
        return all(done.get(partition, 0) >= end for partition, end in ends.items() if end)

    def served(self) -> bool:
        """Whether the scorers serve the champion, and it has scored everybody."""
        version = self.state.champion
        meters = self._system.meters().get("score-view", {})
        name = f'dealeriq_model_served{{model="{self._model}",role="champion",version="{version}"}}'
        if not meters.get(name):
            return False
        crowned = self.state.versions[version or ""].at
        if crowned in self._promoted_s and crowned not in self._served_s:
            self._served_s[crowned] = time.monotonic()
            self._took("promotion to served", self._served_s[crowned] - self._promoted_s[crowned])
        if self._store.swept().get(self._model) != crowned:
            return False
        if crowned in self._promoted_s:
            self._took("promotion to everybody scored", time.monotonic() - self._promoted_s.pop(crowned))
            self.note("swept", 0, f"{version} has scored everybody")
        return True

    def scored(self, newest: Mapping[str, int]) -> bool:
        """Whether each of these subjects is scored as of its newest order (ms)."""
        bucket_ms = round(self._settings.scoring.bucket_s * 1000)
        held = self._store.scored({self._model: list(newest)})
        return all(
            held.get((self._model, subject), -1) >= at // bucket_ms * bucket_ms
            for subject, at in newest.items()
        )

    def roll_back(self) -> None:
        """Make the champion before this one champion again, as `dealeriq models rollback` does."""
        state = self.state
        was = state.before()
        self._log.write(
            self._model, was.version, "champion", f"rolled back from {state.champion}",
            cause=uuid.uuid4().hex, reason="rollback", after=state.position, artifact=was.artifact,
            run_id=was.run_id, sha256=was.sha256,
        )  # fmt: skip
        step = next(each for each in reversed(self._log.registry.history) if each.model == self._model)
        self._decided(step, time.monotonic())

    def told(self) -> dict[str, Any]:
        """Everything that was seen, as JSON."""
        return {
            "steps": [asdict(each) for each in self.steps],
            "seconds": self.seconds,
            "errors": self.errors(),
            "champions": [
                {"version": each.version, "reason": each.reason}
                for each in self._log.registry.history
                if each.model == self._model and each.stage == "champion" and not each.void
            ],
            "versions": {
                name: {"stage": each.stage, "run_id": each.run_id, "metrics": each.metrics}
                for name, each in self.state.versions.items()
            },
        }

    def errors(self) -> list[dict[str, Any]]:
        """The measured error of each version in each window, in the gate's metric, the windows in order."""
        found = [
            {
                "window_end": each.window_end, "version": each.model_version, "role": each.role,
                "error": each.value, "rows": each.rows,
            }
            for each in self.observations
            if each.monitor == "measured" and each.value is not None
        ]  # fmt: skip
        return sorted(found, key=lambda one: (one["window_end"], one["role"]))

    def _took(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(round(seconds, 1))
