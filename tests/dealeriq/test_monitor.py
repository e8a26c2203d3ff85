"""The watch on real services: a change and a schedule ask for trainings, each once, also after a restart."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from connectors.kafka import consumer
from connectors.whole import end_offset
from dealeriq.monitor import Monitor
from dealeriq.settings import Settings
from models.lifecycle_log import LifecycleLog
from models.monitoring.observation import Observation, ObservationLog
from models.requests import TOPIC, RequestLog
from models.runtime import Session
from tests.models.serving import score, serve
from tests.models.year import DAY, START, write_year

MODEL = "churn"
TRAINED, CHANGED, DAYS = 203, 231, 252


class Watching:
    """A champion on a stream that changes, and looks of watches that were just started."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.lake, folder = settings, Path(settings.lake.url or ""), settings.data_dir
        write_year(self.lake, days=DAYS, steady=True, busier=(CHANGED, 4.0))
        self.session: Session = serve(MODEL, self.lake, folder / "models", START + TRAINED * DAY)
        self.version = self.session.version
        score(self.session, self.lake, START + TRAINED * DAY, START + DAYS * DAY)
        with LifecycleLog(settings.kafka, settings.registry) as log:
            for stage in ("registered", "champion"):
                step = log.write(
                    MODEL, self.version, stage, "a test", cause=f"{folder}{stage}", reason="training",
                    artifact=str(self.session.folder), sha256=self.session.description.sha256,
                )  # fmt: skip
            self.trained = step.event_time / 1000

    def look(self, days: float) -> tuple[list[Observation], RequestLog]:
        """What a watch sees so many days after the training; every request there is then."""
        kafka, registry = self.settings.kafka, self.settings.registry
        clock = self.trained + days * 86_400
        with (
            contextlib.closing(Monitor(self.settings, threading.Event(), clock=lambda: clock)) as monitor,
            LifecycleLog(kafka, registry) as log,
            ObservationLog(kafka, registry) as seen,
            RequestLog(kafka, registry) as asked,
        ):
            found = [each for each in monitor.look(log, seen, asked) if each.model_version == self.version]
            asked.catch_up()
            return found, asked


@pytest.fixture(scope="module")
def watching(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    folder = tmp_path_factory.mktemp("monitor")
    settings = stack.model_copy(deep=True)
    settings.data_dir, settings.lake.url = folder, str(folder / "lake")
    settings.monitors.schedule, settings.monitors.settle_s = "weekly", 0.0
    yield Watching(settings)
    # What was asked for is nobody else's: the trainer of another test goes on behind it.
    trainer = consumer(settings.kafka, "dealeriq-trainer")
    place = TopicPartition(TOPIC, 0)
    trainer.commit(offsets=[TopicPartition(TOPIC, 0, end_offset(trainer, place))], asynchronous=False)
    trainer.close()


@pytest.mark.services
@pytest.mark.timeout(900)
def test_alarms_and_schedules_ask_once_also_after_a_restart(watching: Watching) -> None:
    seen, asked = watching.look(days=6)
    assert [each for each in seen if each.alarm and each.monitor == "inputs"]
    assert (MODEL, "drift") in asked.asked_ms
    assert (MODEL, "schedule") not in asked.asked_ms
    drift = set(asked.ids)
    again, asked = watching.look(days=8)
    assert again == []  # every window was judged before
    assert (MODEL, "schedule") in asked.asked_ms
    assert len(asked.ids - drift) >= 1
    both = set(asked.ids)
    assert watching.look(days=8)[1].ids == both
