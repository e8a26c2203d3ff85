"""The trainer on real services: a request becomes a champion; killed in the middle it goes on; one of two
wins.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from connectors.dead_letters import dead_letters
from connectors.kafka import producer
from dealeriq.settings import Settings
from dealeriq.trainer import Pending, Waiting
from models.lifecycle import Lifecycle, LifecycleError, PromotionLostError
from models.lifecycle_log import LifecycleLog
from models.requests import TOPIC, send
from models.runtime import Session
from tests.models.year import write_year
from tests.waiting import until

MODEL = "demand_forecast"


@pytest.fixture(scope="module")
def place(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with a data folder of their own, and half a year of orders in its lake."""
    folder = tmp_path_factory.mktemp("trainer")
    write_year(folder / "lake")
    settings = stack.model_copy(deep=True)
    settings.data_dir = folder
    settings.lake.url = str(folder / "lake")
    settings.trainer.min_interval_s = 0.0
    return settings


def cli(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | settings.environment()
    command = [sys.executable, "-m", "dealeriq", "models", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def trainer(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | settings.environment() | {"DEALERIQ_METRICS_PORT": "0"}
    command = [sys.executable, "-m", "dealeriq.processes", "trainer"]
    return subprocess.Popen(command, env=environment, stderr=log.open("ab"), start_new_session=True)


class Trained:
    """What a trainer did that was killed with its child while it trained, and started again."""

    def __init__(self, place: Settings, said: Path) -> None:
        for number in range(2):
            send(place.kafka, place.registry, MODEL, "schedule", f"weekly {number}", cause=f"{said}-{number}")
        writer = producer(place.kafka)
        writer.produce(TOPIC, b"poison", key=b"x")
        writer.flush()
        first = trainer(place, said)
        try:
            until(lambda: "\ntraining\n" in said.read_text() or "is champion" in said.read_text(), 240.0)
        finally:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
        with LifecycleLog(place.kafka, place.registry) as log:
            log.catch_up()
            self.versions_after_kill = dict(log.registry.state(MODEL).versions)
            second = trainer(place, said)
            try:
                until(lambda: log.catch_up() and log.registry.state(MODEL).champion, 240.0)
                until(lambda: "aliases" in said.read_text() or _alias(place) is not None, 240.0)
            finally:
                second.send_signal(signal.SIGTERM)
                self.exit_code = second.wait(60)
            self.state = log.registry.state(MODEL)
            self.steps = [
                (each.stage, each.reason, each.void) for each in log.registry.history if each.model == MODEL
            ]
        self.alias, self.said = _alias(place), said.read_text()
        self.champion = self.state.versions[self.state.champion or ""]


@pytest.fixture(scope="module")
def trained(place: Settings, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(place, tmp_path_factory.mktemp("trained") / "trainer.log")


@pytest.mark.services
def test_a_request_becomes_a_champion_and_each_step_is_in_the_log(place: Settings, trained: Trained) -> None:
    assert trained.versions_after_kill == {}  # nothing half done
    assert trained.exit_code == 0, trained.said
    assert trained.steps == [("registered", "training", ""), ("champion", "gates", "")]
    assert "training for 2 request(s)" in trained.said
    version = trained.champion
    session = Session(Path(version.artifact))
    assert (session.version, session.description.sha256) == (version.version, version.sha256)
    assert session.description.run_id == version.run_id != ""
    assert trained.alias == version.run_id  # MLflow shows the same
    assert any(each.value == b"poison" for each in dead_letters(place.kafka, TOPIC))


def _alias(settings: Settings) -> str | None:
    """The run of MLflow's champion, read from its database as anyone could."""
    import sqlite3

    file = settings.data_dir / "mlflow" / "mlflow.db"
    if not file.exists():
        return None
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT v.run_id FROM registered_model_aliases a JOIN model_versions v "
            "ON v.name = a.name AND v.version = a.version WHERE a.name = ? AND a.alias = 'champion'",
            (MODEL,),
        ).fetchall()
    return str(rows[0][0]) if rows else None


@pytest.mark.services
def test_of_two_people_one_wins_and_a_rollback_goes_back(place: Settings) -> None:
    """On a model of its own, so that it stands in nobody's way."""
    model, champions = f"m-{place.data_dir.name}", []
    with LifecycleLog(place.kafka, place.registry) as log, LifecycleLog(place.kafka, place.registry) as other:
        for version in ("v1", "v2", "v3"):
            log.write(model, version, "registered", "new", cause=version, reason="training", artifact=version)
        log.write(model, "v1", "champion", "first", cause="1", reason="gates")
        # Both have seen the same; they write at once.
        for each in (log, other):
            each.catch_up()
        seen, outcome = log.registry.state(model).position, {}

        def decide(mine: LifecycleLog, version: str) -> None:
            try:
                outcome[version] = mine.write(
                    model, version, "champion", "mine", cause=version + "c", reason="person", after=seen
                )
            except PromotionLostError as error:
                outcome[version] = error

        threads = [threading.Thread(target=decide, args=pair) for pair in ((log, "v2"), (other, "v3"))]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
        lost = [each for each in outcome.values() if isinstance(each, PromotionLostError)]
        assert len(lost) == 1
        assert "the last decision is at" in str(lost[0])
        for each in (log, other):
            each.catch_up()
        champions = [each.registry.state(model).champion for each in (log, other)]
        assert champions[0] == champions[1] != "v1"
        again = log.write(
            model, champions[0] or "", "champion", "mine", cause=f"{champions[0]}c", reason="person"
        )
        assert again.at == log.registry.state(model).position  # a repeat is the same step
        with pytest.raises(LifecycleError, match="it is the champion"):
            log.write(model, champions[0] or "", "champion", "again", cause="x", reason="person")
    with LifecycleLog(place.kafka, place.registry) as late:
        late.catch_up()
        assert late.registry.state(model).as_dict() == other.registry.state(model).as_dict()


@pytest.mark.services
def test_the_commands_tell_and_change_the_registry(place: Settings, trained: Trained, tmp_path: Path) -> None:
    held = trained.champion.version
    with LifecycleLog(place.kafka, place.registry) as log:
        log.catch_up()
        # A version that someone else made: the same model under another name.
        copy = tmp_path / "copy"
        shutil.copytree(trained.champion.artifact, copy)
        log.write(
            MODEL, "20170101-other", "registered", "new",
            cause=str(tmp_path), reason="training", artifact=str(copy),
        )  # fmt: skip
    told = json.loads(cli(place, "ls", MODEL, "--json").stdout)
    assert told["champion"] == held
    assert set(told["versions"]) >= {held, "20170101-other"}
    assert held in cli(place, "ls").stdout
    preview = cli(place, "promote", MODEL, "20170101-other")
    assert preview.returncode == 0
    assert "nothing was done" in preview.stderr
    assert json.loads(cli(place, "ls", MODEL, "--json").stdout)["champion"] == held
    done = cli(place, "promote", MODEL, "20170101-other", "--execute", "--json")
    assert json.loads(done.stdout)["replaces"] == held, done.stderr
    compared = json.loads(cli(place, "compare", MODEL, held, "--with", "20170101-other", "--json").stdout)
    assert compared["gain"]["gain"] == 0.0
    assert compared["metrics"][held]["wql"] < compared["metrics"]["naive answer"]["wql"]
    back = cli(place, "rollback", MODEL, "--execute")
    assert back.stdout == f"{MODEL} {held} is champion; before: 20170101-other\n", back.stderr
    steps = json.loads(cli(place, "history", MODEL, "--json").stdout)["history"]
    assert [each["reason"] for each in steps[-2:]] == ["person", "rollback"]
    wrong = cli(place, "promote", MODEL, "20170101-othre", "--execute")
    assert wrong.returncode == 2
    assert "has no version '20170101-othre'" in wrong.stderr
    # MLflow away: decisions count all the same, and it shows them when it is back.
    away = place.model_copy(deep=True)
    away.mlflow.url = "http://127.0.0.1:9"
    done = cli(away, "promote", MODEL, "20170101-other", "--execute", "--json")
    assert json.loads(done.stdout)["done"], done.stderr
    told = cli(away, "sync")
    assert told.returncode == 4
    assert "MLflow at http://127.0.0.1:9" in told.stderr
    assert json.loads(cli(away, "ls", MODEL, "--json").stdout)["champion"] == "20170101-other"
    assert cli(away, "rollback", MODEL, "--execute").returncode == 0
    assert cli(place, "sync").returncode == 0
    assert _alias(place) == trained.champion.run_id
    with LifecycleLog(place.kafka, place.registry) as log:
        log.catch_up()
        again = Lifecycle()
        for at, each in enumerate(log.registry.history):  # every step is there, in order
            assert at == 0 or each.at > log.registry.history[at - 1].at
        assert again.models == {}


def test_requests_wait_together_and_a_person_goes_at_once() -> None:
    waiting = Waiting(100.0)
    waiting.add({"model": "a", "event_id": "1", "reason": "drift"}, 5)
    waiting.add({"model": "b", "event_id": "2", "reason": "drift"}, 6)
    waiting.add({"model": "a", "event_id": "3", "reason": "drift"}, 7)
    one = waiting.due(0.0)
    assert one == Pending("a", "1", 5, count=2)
    assert waiting.position(8) == 5
    waiting.done("a", 0.0)
    assert waiting.position(8) == 6
    waiting.done("b", 1.0)
    assert waiting.position(8) == 8
    waiting.add({"model": "a", "event_id": "4", "reason": "drift"}, 8)
    assert waiting.due(50.0) is None  # trained a moment ago
    found = waiting.due(100.0)
    assert found is not None
    assert found.request == "4"
    waiting.add({"model": "b", "event_id": "5", "reason": "person"}, 9)
    urgent = waiting.due(50.0)
    assert urgent is not None
    assert urgent.model == "b"
    waiting.later(urgent, 50.0)
    assert waiting.due(51.0) is None
    assert waiting.due(56.0) is urgent
