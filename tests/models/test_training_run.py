"""A training from a lake to a verdict, in its own process; leaks and bad data stop it; MLflow knows the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectors.mlflow import Mlflow
from connectors.settings import MlflowSettings
from dealeriq.training import interpreter
from features.plan import load
from models.artifact import ArtifactError
from models.artifact import load as load_artifact
from models.inputs import EventField
from models.report import load_report
from models.runtime import Session
from models.spec import TrainingSet
from models.specs.demand_forecast import DemandForecast
from models.training import run as training
from models.training.events import Stream
from models.training.leaks import LeakError, check_leaks
from models.training.report import calibration
from models.training.run import Job, Result, TrainingBusyError
from models.training.sets import build, split
from models.training.validation import BadDataError, validate
from tests.models.year import DAY, START, orders, write_year

WEEK = 7 * DAY


def job_of(lake: Path, folder: Path, **more: Any) -> Job:
    return replace(Job("demand_forecast", str(lake), str(folder / "models"), str(folder), "request-1"), **more)


@pytest.fixture(scope="module")
def first(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Result]:
    """A training as the trainer does it: a process, a job file, a result file."""
    folder = tmp_path_factory.mktemp("trained")
    job = job_of(lake, folder)
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    command = [interpreter(), "-m", "models.training.run", str(folder / "job.json"), str(folder / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return job, Result(**json.loads((folder / "out.json").read_text())["result"])


def test_a_version_comes_out_with_its_run(first: tuple[Job, Result]) -> None:
    job, found = first
    assert found.verdict["passed"], found.text
    assert found.metrics["wql"] < found.baseline["wql"]
    assert found.champion == {}
    told, _ = load_artifact(Path(found.folder))
    assert (told.version, told.run_id, told.sha256) == (found.version, found.run_id, found.sha256)
    assert told.origin["positions"]["orders"]["0"] == len(orders())
    session = Session(Path(found.folder))
    assert session.run(np.full((3, len(told.inputs)), np.nan, np.float32)).shape == (3, 3)
    mlflow = Mlflow(MlflowSettings(), Path(job.data_dir))
    assert mlflow.run_of("demand_forecast", found.version) == found.run_id
    run = mlflow._client.get_run(found.run_id)
    assert run.data.metrics["wql"] == pytest.approx(found.metrics["wql"])
    assert run.data.params["spec_version"] == "1"
    assert json.loads(run.inputs.dataset_inputs[0].dataset.source)["versions"] == told.origin["versions"]
    changed = mlflow.mirror("demand_forecast", {"champion": found.version}, {found.version: "champion"})
    assert changed == [f"champion set to {found.version}"]
    assert mlflow.mirror("demand_forecast", {"champion": found.version}, {found.version: "champion"}) == []
    assert mlflow.mirror("demand_forecast", {}, {}) == [f"champion taken from {found.version}"]


def test_a_version_keeps_a_report_by_new_entities_size_and_calendar(
    first: tuple[Job, Result], lake: Path
) -> None:
    _, found = first
    told = load_report(Path(found.folder))
    parts = {each["part"]: each for each in told["slices"]}
    assert {"all", "dealer=small", "dealer=large", "no holiday ahead", "weekend"} <= parts.keys()
    assert parts["all"]["value"] == pytest.approx(found.metrics["wql"])
    assert parts["all"]["naive"] == pytest.approx(found.baseline["wql"])
    assert told["facts"]["rows_holdout"] == parts["all"]["rows"]
    data = build(DemandForecast(), load(), lake)
    at = split(data).holdout
    days = [datetime.fromtimestamp(time / 1000, UTC).date() for time in data.time[at].tolist()]
    weekend = np.array([day.weekday() >= 5 for day in days])
    assert parts["weekend"]["rows"] == weekend.sum()
    assert parts["weekend"]["mean"] == pytest.approx(data.y[at][weekend].mean(), abs=1e-3)
    # The Fourth of July is the one holiday that the holdout's weeks may have ahead.
    ahead = np.array([0 < (date(2017, 7, 4) - day).days <= 7 for day in days])
    assert parts["no holiday ahead"]["rows"] == (~ahead).sum()
    (Path(found.folder) / "report.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_report(Path(found.folder))


def test_calibration_is_told_beside_what_came_true() -> None:
    rng = np.random.default_rng(4)
    p = rng.random(5_000)
    truth = (rng.random(5_000) < p).astype(np.float64)
    bins = calibration(truth, p)
    assert sum(int(each["rows"]) for each in bins) == 5_000
    assert all(abs(each["told"] - each["seen"]) < 0.08 for each in bins)
    assert [each["told"] for each in bins] == sorted(each["told"] for each in bins)
    assert max(abs(each["told"] - each["seen"]) for each in calibration(truth, p**4)) > 0.2


def test_mlflow_answers_with_the_registered_model(first: tuple[Job, Result]) -> None:
    import mlflow

    job, found = first
    address = MlflowSettings().tracking(Path(job.data_dir))
    mlflow.set_tracking_uri(address)
    model = mlflow.pyfunc.load_model("models:/demand_forecast/1")
    session = Session(Path(found.folder))
    rows = np.random.default_rng(0).random((4, len(session.description.inputs)), np.float32)
    assert np.array_equal(model.predict(rows)["output"], session.run(rows))
    assert model.metadata.signature is not None


def test_the_same_data_are_the_same_version_and_no_promotion(first: tuple[Job, Result]) -> None:
    job, found = first
    again = training.train(replace(job, champion=found.folder, request="request-2"))
    assert again.version == found.version
    assert not again.verdict["passed"]
    assert "the champion itself" in again.text
    assert again.warnings == []
    assert again.champion == pytest.approx(found.metrics, rel=1e-3)  # the champion is asked on the same rows


def test_earlier_data_do_not_beat_the_champion(first: tuple[Job, Result]) -> None:
    job, found = first
    as_of = found.as_of_ms - 2 * WEEK
    again = training.train(replace(job, champion=found.folder, as_of_ms=as_of, request="request-3"))
    assert again.version != found.version
    assert again.as_of_ms == as_of
    assert not again.verdict["passed"]
    assert any("not better than the champion" in reason for reason in again.verdict["reasons"])


def test_without_mlflow_the_version_has_no_run_and_says_so(lake: Path, tmp_path: Path) -> None:
    away = {"url": "http://127.0.0.1:9", "timeout_s": 1}
    found = training.train(job_of(lake, tmp_path, mlflow=away))
    assert found.run_id == ""
    assert any("MLflow at http://127.0.0.1:9" in each for each in found.warnings)
    assert Session(Path(found.folder)).version == found.version


def test_killed_in_the_middle_nothing_refers_to_it_and_the_next_one_clears_up(
    first: tuple[Job, Result], tmp_path: Path
) -> None:
    job = replace(first[0], folder=str(tmp_path / "models"), request="request-4")
    (tmp_path / "job.json").write_text(json.dumps(asdict(job)))
    command = [
        sys.executable,
        "-m",
        "models.training.run",
        str(tmp_path / "job.json"),
        str(tmp_path / "out.json"),
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("training"):
            break
    with pytest.raises(TrainingBusyError, match="is being trained already"):
        training.train(job)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out.json").exists()
    stray = tmp_path / "models" / "demand_forecast" / ".20170101-half-x"
    stray.mkdir()
    found = training.train(job)
    assert not stray.exists()
    mlflow = Mlflow(MlflowSettings(), Path(job.data_dir))
    experiment = mlflow._experiment("demand_forecast")
    runs = mlflow._client.search_runs([experiment], "tags.`dealeriq.request` = 'request-4'")
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    assert [run.info.run_id for run in runs if run.info.status == "FINISHED"] == [found.run_id]


class Cheat(DemandForecast):
    """Next week's sales among its inputs: as a field of the row, from a stream that was read further."""

    inputs = (*DemandForecast.inputs, EventField("next_week", "next_week"))

    def rows(self, stream: Stream) -> pa.Table:
        rows = super().rows(stream)
        worth = stream.after(rows, "orders", self.entity, WEEK, "amount")
        noise = np.random.default_rng(1).normal(0, 3, len(worth))
        return rows.append_column("@next_week", pa.array(worth + noise))


class Picky(DemandForecast):
    """Only rows that will sell something: no input is wrong, and the choice of rows knows the future."""

    def rows(self, stream: Stream) -> pa.Table:
        rows = super().rows(stream)
        return rows.filter(pa.array(stream.after(rows, "orders", self.entity, WEEK) > 0))


def test_a_planted_leak_is_caught_and_named(lake: Path) -> None:
    for cheat, message in (
        (Cheat(), r"next_week differ in \d+ of"),
        (Picky(), "the choice of rows knows the future"),
    ):
        data = build(cheat, load(), lake)
        with pytest.raises(LeakError, match=message):
            check_leaks(cheat, load(), lake, data)
    honest = build(DemandForecast(), load(), lake)
    assert check_leaks(DemandForecast(), load(), lake, honest) > 100


def test_a_label_among_the_inputs_is_bad_data(lake: Path) -> None:
    class Label(DemandForecast):
        inputs = (*DemandForecast.inputs, EventField("label", "label"))

        def rows(self, stream: Stream) -> pa.Table:
            rows = super().rows(stream)
            return rows.append_column(
                "@label", pa.array(stream.after(rows, "orders", self.entity, WEEK, "amount"))
            )

    data = build(Label(), load(), lake)
    with pytest.raises(BadDataError, match="label tells the label almost exactly"):
        validate(data, split(data))


def test_bad_data_are_told_with_every_reason(lake: Path) -> None:
    data = build(DemandForecast(), load(), lake)
    parts = split(data)
    facts = validate(data, parts)
    assert 0 < facts.cold < 1
    assert facts.rows["holdout"] == len(parts.holdout)

    def bad(**changed: Any) -> TrainingSet:
        return replace(data, **changed)

    nan = data.y.copy()
    nan[parts.fit[0]] = np.inf
    with pytest.raises(BadDataError, match="1 labels are not numbers"):
        validate(bad(y=nan), parts)
    with pytest.raises(BadDataError, match="nothing to learn"):
        validate(bad(y=np.ones(len(data))), parts)
    with pytest.raises(BadDataError, match="inputs are always missing"):
        validate(bad(x=np.full_like(data.x, np.nan)), parts)
    twice = pa.concat_tables([data.frame.slice(0, 1)] * 2 + [data.frame.slice(2)])
    with pytest.raises(BadDataError, match="1 rows are of the same dealer_id, category at the same time"):
        validate(bad(frame=twice, time=np.r_[data.time[:1], data.time[:1], data.time[2:]]), parts)


def test_labels_are_what_came_after(tmp_path: Path) -> None:
    """Every label against a loop over the events."""
    events = write_year(tmp_path, seed=5, dealers=5, days=140)
    data = build(DemandForecast(), load(), tmp_path)
    some = np.random.default_rng(0).choice(len(data), 60, replace=False)
    for at in some:
        dealer, category, time_ms = data.key("dealer_id")[at], data.key("category")[at], data.time[at]
        wanted = sum(
            each["amount"]
            for each in events
            if each["dealer_id"] == dealer
            and each["category"] == category
            and time_ms < each["event_time"] <= time_ms + WEEK
        )
        assert data.y[at] == pytest.approx(wanted)
    later = build(DemandForecast(), load(), tmp_path, as_of_ms=START + 100 * DAY)
    assert later.time.max() <= START + 100 * DAY - DemandForecast.label.known_after_ms
