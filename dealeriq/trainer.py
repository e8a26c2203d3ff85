"""The trainer: requests in, versions out. It trains in a child process, judges, and writes each step to the
log.

A request is done when its steps are in the log; only then the position moves on. Killed at any moment, it reads
the request again, trains again, and comes to the same version and the same steps, which count once. Several
requests for one model that wait together are one training; a model is not trained again before
`trainer.min_interval_s`, unless a person asks.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from prometheus_client import Gauge

from connectors.errors import KafkaUnavailableError, translated
from connectors.kafka import consumer, dead_letter, ensure_topics, producer
from connectors.registry import Registry
from dealeriq.settings import Settings
from dealeriq.training import TrainingStoppedError, mirror, record, train
from models.lifecycle_log import LifecycleLog
from models.requests import TOPIC
from models.specs import specs
from schemas.codec import Decoder
from schemas.errors import DealerIQError, UndecodableError
from schemas.validate import problems
from streams.metrics import REGISTRY, StageMeters

__all__ = ["Pending", "Trainer"]

_TRAINED_AT = Gauge(
    "dealeriq_trainer_trained_timestamp_seconds", "When a model was trained last, epoch s.", ["model"],
    registry=REGISTRY,
)  # fmt: skip
_RETRY_S = (5.0, 300.0)
# Kafka would take a consumer that trains for longer than this for dead.
_LONGEST_TRAINING_MS = 24 * 3_600_000


@dataclass
class Pending:
    """The requests for one model that wait: the first one names the training, a person's makes it due at
    once.
    """

    model: str
    request: str
    at: int
    urgent: bool = False
    count: int = 0
    not_before: float = 0.0
    tries: int = 0


@dataclass
class Waiting:
    """What waits, by model, and when each model was trained last (monotonic s)."""

    min_interval_s: float
    trained: dict[str, float] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)

    def add(self, request: Mapping[str, Any], at: int) -> None:
        """Take a request at an offset."""
        model = request["model"]
        one = self.pending.setdefault(model, Pending(model, request["event_id"], at))
        one.count += 1
        one.urgent |= request["reason"] == "person"

    def due(self, now: float) -> Pending | None:
        """Return what is to be trained next; None where nothing is due yet."""
        for each in sorted(self.pending.values(), key=lambda each: (not each.urgent, each.at)):
            last = self.trained.get(each.model)
            rested = each.urgent or last is None or now - last >= self.min_interval_s
            if rested and now >= each.not_before:
                return each
        return None

    def done(self, model: str, now: float) -> None:
        """The model was trained."""
        self.pending.pop(model, None)
        self.trained[model] = now

    def later(self, one: Pending, now: float) -> None:
        """What failed for a reason that may pass is tried again, each time later."""
        one.tries += 1
        one.not_before = now + min(_RETRY_S[0] * 2 ** (one.tries - 1), _RETRY_S[1])

    def position(self, read: int) -> int:
        """The offset up to which every request is done."""
        return min([each.at for each in self.pending.values()], default=read)


class Trainer:
    """One trainer of a system. `run` ends when `stop` is set; a training that runs then is ended, too."""

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event,
        *,
        group: str = "dealeriq-trainer",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._stop, self._clock = settings, stop, clock
        self._meters = StageMeters("trainer")
        self._waiting = Waiting(settings.trainer.min_interval_s)
        ensure_topics(settings.kafka, [TOPIC, f"{TOPIC}.dlq"])
        registry = Registry(settings.registry)
        registry.register_all([TOPIC])
        self._decoder = Decoder.of_topic(TOPIC, registry.schema)
        self._consumer = consumer(settings.kafka, group, max_poll_interval_ms=_LONGEST_TRAINING_MS)
        self._read: dict[int, int] = {}
        self._mirrored: dict[str, tuple[str | None, str | None]] = {}
        self._mirror_at = 0.0

    def run(self) -> None:
        """Take requests and train until told to stop."""
        self._consumer.subscribe([TOPIC])
        try:
            with LifecycleLog(self._settings.kafka, self._settings.registry) as log:
                self._remember(log)
                while not self._stop.is_set():
                    self._poll()
                    one = self._waiting.due(self._clock())
                    if one is not None:
                        self._train(one, log)
                    self._follow(log)
                    self._commit()
        finally:
            self._consumer.close()

    def _remember(self, log: LifecycleLog) -> None:
        """Take when each model was trained last from the log, so that a restart does not train at once
        again.
        """
        log.catch_up()
        for name, state in log.registry.models.items():
            last_ms = max((each.registered_ms for each in state.versions.values()), default=0)
            self._waiting.trained[name] = self._clock() - max(0.0, time.time() - last_ms / 1000)

    def _poll(self) -> None:
        for message in self._consumer.consume(100, timeout=0.5):
            if message.error() is not None:
                continue
            self._read[message.partition()] = message.offset() + 1
            try:
                request = self._decoder.decode(message.value())
                wrong = problems(TOPIC, request)
                if not wrong and request["model"] not in specs():
                    wrong = [f"no model is called {request['model']!r}"]
                if wrong:
                    raise UndecodableError("; ".join(wrong))
            except UndecodableError as error:
                writer = producer(self._settings.kafka)
                dead_letter(writer, message, error, "trainer")
                writer.flush(30.0)
                self._meters.count("dead_letter")
            else:
                self._waiting.add(request, message.offset())
                self._meters.count("asked")

    def _train(self, one: Pending, log: LifecycleLog) -> None:
        self._say(f"{one.model}: training for {one.count} request(s), the first {one.request}")
        try:
            log.catch_up()
            state = deepcopy(log.registry.state(one.model))
            with self._meters.batch():
                result = train(self._settings, state, one.request, stop=self._stop, progress=self._say)
            step = record(log, self._settings, state, result, one.request)
        except TrainingStoppedError as error:
            if self._stop.is_set():
                return  # the request is read again
            self._failed(one, error)
        except DealerIQError as error:
            self._failed(one, error)
        except KafkaException as error:
            known = translated(error)
            self._failed(one, known or KafkaUnavailableError(str(error)))
        else:
            for each in result["warnings"]:
                self._say(f"{one.model}: warning: {each}")
            self._say(f"{one.model} {result['version']} is {step.stage}: {result['text']}")
            self._meters.count(step.stage)
            _TRAINED_AT.labels(one.model).set(time.time())
            self._waiting.done(one.model, self._clock())

    def _failed(self, one: Pending, error: DealerIQError) -> None:
        """Say it; what is away is waited for, what is wrong with the data or the model is not tried again."""
        self._meters.error(error)
        self._say(f"{one.model}: {error.told}")
        if error.exit_code == 4:
            self._waiting.later(one, self._clock())
        else:
            self._meters.count("failed")
            self._waiting.done(one.model, self._clock())

    def _follow(self, log: LifecycleLog) -> None:
        """Show in MLflow what the log says, when it says something new; try again later where MLflow is
        away.
        """
        log.catch_up()
        if self._clock() < self._mirror_at:
            return
        now = {name: (each.champion, each.challenger) for name, each in log.registry.models.items()}
        changed = {name for name, pair in now.items() if self._mirrored.get(name) != pair}
        if not changed or not any(log.registry.models[name].versions for name in changed):
            return
        try:
            mirror(self._settings, {name: log.registry.models[name] for name in changed}, self._stop)
        except DealerIQError as error:
            self._meters.error(error)
            self._say(f"MLflow does not show it yet: {error}")
            self._mirror_at = self._clock() + _RETRY_S[1]
        else:
            self._mirrored.update(now)

    def _commit(self) -> None:
        if not self._read:
            return
        places = [TopicPartition(TOPIC, n, self._waiting.position(at)) for n, at in self._read.items()]
        self._consumer.commit(offsets=places, asynchronous=False)

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
