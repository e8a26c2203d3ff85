"""Runs on PostgreSQL and their files in a bucket that checks signatures: trained, promoted, rolled back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.mlflow import Mlflow, MlflowUnavailableError
from connectors.settings import MlflowSettings
from dealeriq.settings import Settings, load
from dealeriq.training import mirror, train
from models.lifecycle import Lifecycle, decision
from tests.models.year import DAY
from tests.postgres_server import USER, postgres
from tests.s3_server import BUCKET, S3Server

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

MODEL = "demand_forecast"


@pytest.fixture(scope="module")
def place(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Any, S3Server]]:
    """Settings that name both servers, a connection to the database, and the bucket. The lake is in it, too."""
    import pg8000.native

    folder = tmp_path_factory.mktemp("apart")
    bucket = S3Server(folder)
    shutil.copytree(lake, bucket.folder / BUCKET / "lake")
    bucket.start()
    try:
        with postgres() as (server, port):
            server.run("CREATE DATABASE runs")
            given = bucket.variables("lake") | {
                "DEALERIQ_DATA_DIR": str(folder / "data"),
                "DEALERIQ_MLFLOW__URL": f"postgresql+pg8000://{USER}@127.0.0.1:{port}/runs",
                "DEALERIQ_MLFLOW__ARTIFACTS": f"s3://{BUCKET}/runs",
            }
            with pg8000.native.Connection(USER, host="127.0.0.1", port=port, database="runs") as connection:
                yield load(given, running=False), connection, bucket
    finally:
        bucket.stop()


@pytest.mark.parametrize("wrong", ["port", "database"])
def test_a_database_that_is_away_is_said_at_once(
    place: tuple[Settings, Any, S3Server], wrong: str, tmp_path: Path
) -> None:
    url = place[0].mlflow.url
    assert url is not None
    where, name = url.rsplit("/", 1)
    away = f"{where.rpartition(':')[0]}:9/{name}" if wrong == "port" else f"{where}/nowhere"
    with pytest.raises(MlflowUnavailableError, match="refused" if wrong == "port" else "nowhere"):
        Mlflow(MlflowSettings(url=away), tmp_path)


def test_trained_promoted_and_rolled_back(place: tuple[Settings, Any, S3Server]) -> None:
    settings, database, bucket = place
    registry, at = Lifecycle(), 0

    def step(version: str, stage: str, reason: str, **more: Any) -> None:
        nonlocal at
        told = {"cause": f"c{at}", "event_time": 1, "reason": reason, **more}
        assert not registry.apply(decision(registry.state(MODEL), version, stage, "a test", **told), at).void
        at += 1

    def champion() -> list[Any]:
        """The run of MLflow's champion, as anyone reads it from the database."""
        return database.run(
            "SELECT v.run_id FROM registered_model_aliases a JOIN model_versions v ON v.name = a.name AND "
            "v.version = a.version WHERE a.name = :name AND a.alias = 'champion'",
            name=MODEL,
        )

    results: list[dict[str, Any]] = []
    for number in range(2):
        as_of = results[0]["as_of_ms"] - 14 * DAY if results else None
        result = train(settings, registry.state(MODEL), f"request-{number}", as_of_ms=as_of)
        results.append(result)
        assert result["warnings"] == []
        made = {name: result[name] for name in ("run_id", "sha256")} | {"artifact": result["folder"]}
        step(result["version"], "registered", "training", **made)
        step(result["version"], "champion", "person")
        assert mirror(settings, registry.models)[MODEL] == [f"champion set to {result['version']}"]
        assert champion() == [[result["run_id"]]]
    first, second = results
    assert first["version"] != second["version"]
    step(first["version"], "champion", "rollback")
    assert mirror(settings, registry.models)[MODEL] == [f"champion set to {first['version']}"]
    assert champion() == [[first["run_id"]]]
    # Each run is whole: its numbers in the database, and the file that is served in the bucket.
    for result in results:
        run = result["run_id"]
        assert database.run("SELECT status FROM runs WHERE run_uuid = :run", run=run) == [["FINISHED"]]
        told = dict(database.run("SELECT key, value FROM latest_metrics WHERE run_uuid = :run", run=run))
        assert told["wql"] == pytest.approx(result["metrics"]["wql"])
        ((uri,),) = database.run("SELECT artifact_uri FROM runs WHERE run_uuid = :run", run=run)
        assert uri.startswith(f"s3://{BUCKET}/runs/{MODEL}/")
        kept = bucket.folder / BUCKET / uri.removeprefix(f"s3://{BUCKET}/")
        served = next(each for each in kept.rglob("model.onnx") if each.parent.name == "served")
        assert served.read_bytes() == (Path(result["folder"]) / "model.onnx").read_bytes()
