"""Trainings, as the trainer and the command line run them: in their own environment, their steps in the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dealeriq.runtime.child import die_with_parent
from dealeriq.settings import Settings
from models.lifecycle import Decision, ModelState
from models.specs import spec as spec_of
from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from models.lifecycle_log import LifecycleLog

__all__ = [
    "TrainingStoppedError",
    "child",
    "interpreter",
    "mirror",
    "record",
    "store_variables",
    "text_of",
    "train",
]

_HOUSE = Path(__file__).parents[1]
_NEEDED = {
    "train": ("lightgbm", "mlflow", "sklearn", "onnxmltools"),
    "encoders": ("torch", "sentence_transformers", "onnxscript", "efficientnet_lite_pytorch"),
}
"""Environment → what its work cannot do without."""


class TrainingStoppedError(DealerIQError):
    """A training was ended before its end: it took too long, or its process was told to stop."""

    remedy = "Nothing changed. Raise trainer.most_s if it needs longer, then train again."
    exit_code = 4


def interpreter(progress: Callable[[str], None] = lambda line: None, environment: str = "train") -> str:
    """Return the interpreter of an environment: `.venv-NAME`'s, which is installed the first time.

    Where we were installed as a package there is no lock to make it of: then this one, if it has what it needs.

    Raises EnvironmentUnavailableError.
    """
    locked = (_HOUSE / "requirements" / f"{environment}.lock").exists()
    if not locked and all(find_spec(name) for name in _NEEDED[environment]):
        return sys.executable
    from dealeriq.runtime.environments import ensure_environment

    programs = ensure_environment(environment, progress)
    (site,) = (programs.parent / "lib").glob("python3.*/site-packages")
    house = site / "dealeriq-house.pth"  # behind its own packages on the path
    if not house.exists() or house.read_text().strip() != str(_HOUSE):
        house.write_text(f"{_HOUSE}\n")
    return str(programs / "python")


def child(
    module: str,
    job: Mapping[str, Any],
    *,
    most_s: float = 3_600.0,
    stop: threading.Event | None = None,
    progress: Callable[[str], None] = lambda line: None,
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Any:
    """Run a module of `models` (`training.run`) with a job in the training environment; return its answer.

    `python` is another interpreter, for what needs other packages or none; `variables` are set where the
    environment does not say otherwise. The module's lines go to stderr. Raises ChildFailedError,
    TrainingStoppedError, EnvironmentUnavailableError.
    """
    from models.training.child import read_answer

    python = python or interpreter(progress)
    with tempfile.TemporaryDirectory(prefix="dealeriq-training-") as name:
        job_file, out = Path(name) / "job.json", Path(name) / "out.json"
        job_file.write_text(json.dumps(job), "utf-8")
        job_file.chmod(0o600)  # it may hold the lake's keys
        began = time.monotonic()
        command = [python, "-m", f"models.{module}", str(job_file), str(out)]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=_environment(variables or {}),
            preexec_fn=die_with_parent,
        ) as running:  # fmt: skip
            while running.poll() is None:
                late = time.monotonic() - began > most_s
                if late or (stop is not None and stop.is_set()):
                    running.kill()
                    running.wait()
                    why = f"it took longer than {most_s:.0f} s" if late else "it was told to stop"
                    raise TrainingStoppedError(f"{module}: {why}")
                time.sleep(0.1)
        return read_answer(out, running.returncode)


def text_of(settings: Settings) -> dict[str, Any]:
    """Return the settings of the text encoder for a job, the key in plain: the job's file is ours alone."""
    key = settings.text.endpoint_key
    plain: dict[str, Any] = settings.text.model_dump(mode="json")
    return plain | {"endpoint_key": None if key is None else key.get_secret_value()}


def train(
    settings: Settings,
    state: ModelState,
    request: str,
    *,
    as_of_ms: int | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train a model against the champion of `state`; return the result (`models.training.run.Result`)."""
    from connectors.lake import lake_at

    lake = lake_at(settings.lake, settings.data_dir)
    champion = state.versions[state.champion].artifact if state.champion else None
    job = {
        "model": state.name, "lake": lake.url, "lake_options": dict(lake.options), "request": request,
        "folder": str(settings.trainer.path(settings.data_dir)), "data_dir": str(settings.data_dir.absolute()),
        "mlflow": settings.mlflow.model_dump(), "as_of_ms": as_of_ms, "champion": champion,
        "memory_mb": settings.trainer.memory_mb, "text": text_of(settings),
    }  # fmt: skip
    result: dict[str, Any] = child(
        "training.run",
        job,
        most_s=settings.trainer.most_s,
        stop=stop,
        progress=progress,
        variables=store_variables(settings),
    )
    return result


def record(
    log: LifecycleLog, settings: Settings, state: ModelState, result: Mapping[str, Any], request: str
) -> Decision:
    """Write the steps of a training: registered, then what `trainer.promotion` says where it passed (a canary
    where there is a champion), else rejected with the reasons.

    `state` is what the training was judged against: if another decision came since, the promotion counts for
    nothing. Raises PromotionLostError, KafkaUnavailableError.
    """
    model, version = str(result["model"]), str(result["version"])
    metrics = {name: value for name, value in result["metrics"].items() if value == value}
    log.catch_up()
    known = log.registry.state(model)
    if version not in known.versions:
        log.write(
            model, version, "registered", f"trained on the stream up to {_day(result['as_of_ms'])}",
            cause=request, reason="training", artifact=result["folder"], run_id=result["run_id"],
            sha256=result["sha256"], metrics=metrics,
        )  # fmt: skip
    elif known.champion == version:
        return Decision(
            "", model, version, "champion", str(result["text"]), "gates", -1, 0, "it is the champion"
        )
    if not result["verdict"]["passed"]:
        return log.write(
            model, version, "rejected", result["text"], cause=request, reason="gates", metrics=metrics
        )
    promotion, share = settings.trainer.promotion, settings.canary.share
    watched = spec_of(model).in_stream
    canary = promotion == "canary" and state.champion is not None and watched
    text = f"{result['text']}; its scores count for {share:.0%} of the subjects" if canary else result["text"]
    return log.write(
        model, version, "challenger" if canary or promotion == "challenger" else "champion", text,
        cause=request, reason="gates", metrics=metrics, after=state.position, share=share if canary else 0.0,
    )  # fmt: skip


def mirror(
    settings: Settings, states: Mapping[str, ModelState], stop: threading.Event | None = None
) -> dict[str, Any]:
    """Set MLflow's aliases to the log's; return what was changed. Raises ChildFailedError where MLflow is
    away.
    """
    job = {
        "mlflow": settings.mlflow.model_dump(),
        "data_dir": str(settings.data_dir.absolute()),
        "states": [asdict(state) for state in states.values()],
    }
    changed: dict[str, Any] = child(
        "training.mirror", job, most_s=120.0, stop=stop, variables=store_variables(settings)
    )
    return changed


def store_variables(settings: Settings) -> dict[str, str]:
    """Return how MLflow reaches files on S3 (`mlflow.artifacts`): by the settings of the lake."""
    if not (settings.mlflow.artifacts or "").startswith("s3://"):
        return {}
    lake = settings.lake
    keys = {"AWS_ACCESS_KEY_ID": lake.s3_access_key, "AWS_SECRET_ACCESS_KEY": lake.s3_secret_key}
    found = {name: key.get_secret_value() for name, key in keys.items() if key is not None}
    if lake.s3_endpoint is not None:
        found["MLFLOW_S3_ENDPOINT_URL"] = lake.s3_endpoint
    return {**found, "AWS_DEFAULT_REGION": lake.s3_region}


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    return {**variables, **os.environ, **quiet}


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(ms / 1000))
