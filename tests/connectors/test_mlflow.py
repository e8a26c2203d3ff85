"""MLflow where the settings say: its files in an S3 bucket that checks signatures, by the lake's keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

from connectors.mlflow import Mlflow
from connectors.settings import MlflowSettings
from dealeriq.settings import load
from dealeriq.training import store_variables

POSTGRES = "postgresql+pg8000://runs@db/mlflow"


def test_addresses_are_those_of_the_settings(tmp_path: Path) -> None:
    apart = MlflowSettings(url=POSTGRES, artifacts="s3://models/runs/")
    assert apart.tracking(tmp_path) == POSTGRES
    assert apart.files(tmp_path, "churn") == "s3://models/runs/churn"
    server = MlflowSettings(url="http://mlflow:5000")
    assert server.files(tmp_path, "churn") is None  # the server's own
    assert MlflowSettings().tracking(tmp_path).startswith("sqlite:///")
    # A database beside us keeps no files: they lie in the data folder.
    assert (MlflowSettings(url=POSTGRES).files(tmp_path, "churn") or "").startswith("file://")


def test_only_files_on_s3_need_keys() -> None:
    settings = load({"DEALERIQ_LAKE__S3_SECRET_KEY": "s"}, running=False)
    assert store_variables(settings) == {}


@pytest.mark.services
@pytest.mark.timeout(420)
def test_a_runs_files_are_in_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.streams.scoring_model import folder

    server = S3Server(tmp_path)
    server.start()
    try:
        given = server.variables("lake") | {"DEALERIQ_MLFLOW__ARTIFACTS": f"s3://{BUCKET}/runs"}
        settings = load(given, running=False)
        found = store_variables(settings)
        assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == (ACCESS_KEY, SECRET_KEY)
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        where, told = folder(tmp_path / "models", "busy")
        mlflow = Mlflow(settings.mlflow, tmp_path)
        run = mlflow.begin("busy", "a-request", {"seed": 7})
        names = [each.name for each in told.inputs]
        number = mlflow.finish(
            run, "busy", told.version, where, inputs=names, outputs=list(told.outputs), metrics={}, tags={}
        )
        assert number == "1"
        assert mlflow.run_of("busy", told.version) == run
        kept = [each for each in (server.folder / BUCKET / "runs" / "busy").rglob("*") if each.is_file()]
        served = next(each for each in kept if each.parts[-2:] == ("served", "model.onnx"))
        assert served.read_bytes() == (where / "model.onnx").read_bytes()
    finally:
        server.stop()
