"""MLflow: a run for each training, with what it learnt from and what came out, and the registry's copy.

The registry of models is the log (`model.lifecycle`); MLflow holds the runs, and shows the log's champion and
challenger as aliases. Whatever MLflow has missed while it was away is set right by the next `mirror`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.settings import MlflowSettings
from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Dataset", "Mlflow", "MlflowUnavailableError"]

_REQUEST, _VERSION = "dealeriq.request", "dealeriq.version"
_ALIASES = ("champion", "challenger")


class MlflowUnavailableError(DealerIQError):
    """MLflow did not answer, or would not do it. What is served does not depend on it."""

    remedy = (
        "Check mlflow.url and that MLflow is up; the next training or `dealeriq models sync` sets it right."
    )
    exit_code = 4


@dataclass(frozen=True)
class Dataset:
    """What a run learnt from: a name, a digest that changes with the data, its source, and numbers about it."""

    name: str
    digest: str
    source: str
    profile: str = "{}"
    columns: Mapping[str, str] = field(default_factory=dict)


class Mlflow:
    """One MLflow. Raises MlflowUnavailableError from every method."""

    def __init__(self, settings: MlflowSettings, data_dir: Path) -> None:
        self._settings, self._data_dir = settings, data_dir
        self._address = settings.tracking(data_dir)
        # Read when MLflow is imported: it calls home otherwise, and waits long for a server that is away.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(settings.timeout_s))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
        if settings.url is None:
            (data_dir / "mlflow").mkdir(parents=True, exist_ok=True)
        with self._asking():
            from mlflow import MlflowClient

            _reach(self._address, settings.timeout_s)
            self._client = MlflowClient(tracking_uri=self._address, registry_uri=self._address)

    def begin(self, model: str, request: str, parameters: Mapping[str, Any]) -> str:
        """Start the run of a training for `request`; return its id. Runs that a crash left open are ended."""
        with self._asking():
            experiment = self._experiment(model)
            left = self._client.search_runs(
                [experiment], f"tags.`{_REQUEST}` = '{request}' and attributes.status = 'RUNNING'"
            )
            for each in left:
                self._client.set_terminated(each.info.run_id, "KILLED")
            run = self._client.create_run(experiment, tags={_REQUEST: request, "mlflow.runName": request[:12]})
            for name, value in parameters.items():
                self._client.log_param(run.info.run_id, name, value)
            return str(run.info.run_id)

    def learnt_from(self, run_id: str, data: Dataset) -> None:
        """Record the data set of a run."""
        import json

        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        schema = json.dumps({"mlflow_colspec": [{"name": n, "type": t} for n, t in data.columns.items()]})
        entity = Entity(data.name, data.digest[:36], "delta_table", data.source, schema[:65_000], data.profile)
        with self._asking():
            tags = [InputTag("mlflow.data.context", "training")]
            self._client.log_inputs(run_id, [DatasetInput(entity, tags)])

    def finish(
        self,
        run_id: str,
        model: str,
        version: str,
        folder: Path,
        *,
        inputs: list[str],
        outputs: list[str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> str:
        """Log what came out and register it; return MLflow's number of the version. Safe to repeat.

        The artefact `model` is an MLflow model of the ONNX flavour with its signature, and holds the served
        folder.
        """
        with self._asking():
            finite = {name: value for name, value in metrics.items() if value == value and abs(value) < 1e300}
            for name, value in finite.items():
                self._client.log_metric(run_id, name.replace("=", ".").replace("&", "and"), value)
            for name, text in tags.items():
                self._client.set_tag(run_id, name, text[:4_000])
            self._log_model(run_id, folder, inputs, outputs)
            number = self._number(model, version)
            if number is None:
                run = self._client.get_run(run_id)
                made = self._client.create_model_version(
                    model,
                    source=f"{run.info.artifact_uri}/model",
                    run_id=run_id,
                    tags={_VERSION: version},
                )
                number = str(made.version)
            self._client.set_terminated(run_id, "FINISHED")
            return number

    def failed(self, run_id: str, reason: str) -> None:
        """End a run that came to nothing."""
        with self._asking():
            self._client.set_tag(run_id, "dealeriq.error", reason[:4_000])
            self._client.set_terminated(run_id, "FAILED")

    def run_of(self, model: str, version: str) -> str | None:
        """Return the id of the run that made a version; None where MLflow knows none."""
        with self._asking():
            found = self._find(model, version)
            return None if found is None else str(found.run_id)

    def mirror(self, model: str, aliases: Mapping[str, str | None], stages: Mapping[str, str]) -> list[str]:
        """Set the aliases to the versions that the log names, and each version's stage; return what was
        changed.
        """
        changed = []
        with self._asking():
            known = self._versions(model)
            for alias in _ALIASES:
                wanted = known.get(aliases.get(alias) or "")
                held = next((v for v, each in known.items() if alias in each.aliases), None)
                if wanted is None and held is not None:
                    self._client.delete_registered_model_alias(model, alias)
                    changed.append(f"{alias} taken from {held}")
                elif wanted is not None and held != aliases[alias]:
                    self._client.set_registered_model_alias(model, alias, wanted.version)
                    changed.append(f"{alias} set to {aliases[alias]}")
            for version, each in known.items():
                stage = stages.get(version, "registered")
                if each.tags.get("stage") != stage:
                    self._client.set_model_version_tag(model, each.version, "stage", stage)
        return changed

    def _experiment(self, model: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(model)
        if found is not None:
            return str(found.experiment_id)
        try:
            where = self._settings.files(self._data_dir, model)
            made = self._client.create_experiment(model, artifact_location=where)
        except MlflowException:  # another training made it meanwhile
            found = self._client.get_experiment_by_name(model)
            if found is None:
                raise
            made = found.experiment_id
        return str(made)

    def _log_model(self, run_id: str, folder: Path, inputs: list[str], outputs: list[str]) -> None:
        import shutil
        import tempfile

        import mlflow.onnx
        import numpy as np
        import onnx
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        kind = np.dtype(np.float32)
        signature = ModelSignature(
            Schema([TensorSpec(kind, (-1, len(inputs)), "input")]),
            Schema([TensorSpec(kind, (-1, len(outputs)), "output")]),
        )
        with tempfile.TemporaryDirectory(prefix="dealeriq-mlflow-") as room:
            path = Path(room) / "model"
            mlflow.onnx.save_model(
                onnx.load(folder / "model.onnx"),
                path,
                signature=signature,
                pip_requirements=["onnxruntime"],
                metadata={"inputs": inputs, "outputs": outputs},
            )
            shutil.copytree(folder, path / "served")
            self._client.log_artifacts(run_id, str(path), "model")

    def _number(self, model: str, version: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self._find(model, version)
        return None if found is None else str(found.version)

    def _find(self, model: str, version: str) -> Any:
        return self._versions(model).get(version)

    def _versions(self, model: str) -> dict[str, Any]:
        found = {}
        for each in self._client.search_model_versions(f"name = '{model}'"):
            if _VERSION in each.tags:
                # A search leaves aliases out.
                found[each.tags[_VERSION]] = self._client.get_model_version(model, each.version)
        return found

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn MLflow's own errors, and its connections', into ours."""
        began = time.monotonic()
        try:
            yield
        except DealerIQError:
            raise
        except Exception as error:
            from mlflow.exceptions import MlflowException

            if not isinstance(error, MlflowException | OSError) and "sqlalchemy" not in type(error).__module__:
                raise
            words = " ".join(str(error).split())[:300]
            raise MlflowUnavailableError(
                f"MLflow at {_shown(self._address)} did not do it ({time.monotonic() - began:.1f} s): {words}"
            ) from error


def _reach(address: str, timeout_s: float) -> None:
    """Connect once to where a database is the address: MLflow would try for most of an hour, whatever is wrong.

    Raises OSError and SQLAlchemy's errors.
    """
    import sqlalchemy
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if address.partition(":")[0].partition("+")[0] not in DATABASE_ENGINES:
        return
    url = sqlalchemy.make_url(address)
    if url.host and url.port:  # the drivers have no one word for how long to wait
        socket.create_connection((url.host, url.port), timeout_s).close()
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect():
        pass


def _shown(address: str) -> str:
    """The address without a password."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
