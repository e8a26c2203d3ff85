"""One training from a job to a verdict: set, checks, model, ONNX, gates, run. `python -m models.training.run
JOB OUT`.

It runs in a process of its own, in the training environment. Until the result is written nothing refers to what
it made: killed at any moment, it leaves a folder that the next one clears away, and its MLflow run ended as
killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.lake import Lake
from connectors.mlflow import Dataset, Mlflow, MlflowUnavailableError
from connectors.settings import MlflowSettings
from features.plan import load as load_plan
from models.artifact import Description, save, version_of
from models.export.parity import check
from models.gates import Cost, Verdict, judge
from models.inputs import InputsError
from models.monitoring.reference import save_reference
from models.report import save_report
from models.runtime import Session
from models.spec import Fitted, ModelSpec, TrainingSet
from models.specs import spec as spec_of
from models.training.child import answer
from models.training.leaks import check_leaks
from models.training.reference import draw_reference
from models.training.report import report
from models.training.sets import Parts, build, split
from models.training.validation import Facts, validate
from schemas.errors import DealerIQError

__all__ = ["Job", "Result", "TrainingBusyError", "main", "train"]


_ROUNDS = 10


class TrainingBusyError(DealerIQError):
    """The same model is being trained already."""

    remedy = "Wait until it has ended; its result counts for you, too."
    exit_code = 4


@dataclass(frozen=True)
class Job:
    """What to train and where everything is. `request` is the event that asked for it; `champion` a served
    folder.
    """

    model: str
    lake: str
    folder: str
    data_dir: str
    request: str
    lake_options: dict[str, str] = field(default_factory=dict)
    mlflow: dict[str, Any] = field(default_factory=dict)
    as_of_ms: int | None = None
    champion: str | None = None
    seed: int = 7
    memory_mb: int = 768


@dataclass(frozen=True)
class Result:
    """What came of it. `metrics` are the new version's on the holdout, beside the naive answer's and
    champion's.
    """

    model: str
    version: str
    folder: str
    run_id: str
    sha256: str
    as_of_ms: int
    metrics: dict[str, float]
    baseline: dict[str, float]
    champion: dict[str, float]
    verdict: dict[str, Any]
    text: str
    facts: dict[str, float]
    warnings: list[str]
    seconds: float


def train(job: Job, progress: Callable[[str], None] = lambda line: None) -> Result:
    """Train and judge; return the result. The folder is served only when somebody promotes the version.

    Raises NotEnoughDataError, BadDataError, LeakError, ParityError, LakeError, TrainingBusyError. An MLflow
    that is away is a warning: the version then has no run, and `run_id` is empty.
    """
    model, root = spec_of(job.model), Path(job.folder)
    with _alone(root / job.model):
        return _Training(job, model, root / job.model, progress).run()


class _Training:
    def __init__(self, job: Job, spec: ModelSpec, folder: Path, progress: Callable[[str], None]) -> None:
        self.job, self.spec, self.folder, self.say = job, spec, folder, progress
        self.began = time.monotonic()
        self.warnings: list[str] = []

    def run(self) -> Result:
        spec, job = self.spec, self.job
        plan, lake = load_plan(), Lake(job.lake, job.lake_options)
        mlflow, run_id = self._begin()
        try:
            champion = self._champion()
            extra = champion.description.inputs if champion else ()
            self.say(f"{spec.name}: reading the set from the lake")
            data = build(spec, plan, lake, as_of_ms=job.as_of_ms, extra=extra, memory_mb=job.memory_mb)
            parts = split(data)
            facts = validate(data, parts)
            self.warnings += facts.warnings
            self.say(f"{len(data):,} rows of {facts.entities:,}: {facts.rows}; looking for leaks")
            check_leaks(spec, plan, lake, data, memory_mb=job.memory_mb)
            self.say("training")
            fitted = spec.train(data, parts.fit, parts.tune, job.seed)
            trained_s = time.monotonic() - self.began
            onnx = fitted.to_onnx()
            parity = check(fitted, onnx, data.x[parts.holdout], job.seed)
            version = version_of(data.as_of_ms, onnx, data.inputs, spec.version)
            truth, answers = spec.truth(data, parts.holdout), fitted.predict(data.x[parts.holdout])
            metrics = spec.metrics(truth, answers)
            folder = save(
                self.folder / version, self._describe(data, parts, version, onnx, metrics, run_id), onnx
            )
            reference = draw_reference(
                spec, plan, lake, Session(folder), from_ms=int(data.time[parts.holdout].min()),
                as_of_ms=data.as_of_ms, seed=job.seed, memory_mb=job.memory_mb,
            )  # fmt: skip
            if reference is not None:
                save_reference(folder, reference)
            self.say(f"{version}: {_told(metrics)}; judging")
            asked = self._ask(champion, data, parts)
            baseline = spec.baseline(data, parts.holdout)
            cost = Cost(_latency_ms(Session(folder)), len(onnx) / 1e6, trained_s)
            if champion is not None and champion.version == version:
                verdict = Verdict(False, ["it is the champion itself: the data are the same"])
            else:
                verdict = self._judge(data, parts, answers, baseline, asked, cost)
            result = Result(
                spec.name, version, str(folder), run_id, hashlib.sha256(onnx).hexdigest(), data.as_of_ms,
                metrics,
                spec.metrics(truth, baseline), {} if asked is None else spec.metrics(truth, asked),
                verdict.as_dict(), verdict.text,
                {**facts.numbers(), **fitted.facts(), **asdict(cost), "parity_largest": parity.largest},
                self.warnings, round(time.monotonic() - self.began, 3),
            )  # fmt: skip
            found = report(
                spec, data, parts.holdout, answers, baseline,
                {"facts": result.facts, "metrics": metrics, "naive": result.baseline,
                 "champion": result.champion},
                version=version, verdict=verdict.text, warnings=list(result.warnings), missing=facts.missing,
            )  # fmt: skip
            save_report(folder, found)
            self._finish(mlflow, result, data, facts, fitted)
            return result
        except BaseException as error:
            if mlflow is not None:
                with contextlib.suppress(MlflowUnavailableError):
                    mlflow.failed(run_id, f"{type(error).__name__}: {error}")
            raise

    def _describe(
        self, data: TrainingSet, parts: Parts, version: str, onnx: bytes, metrics: dict[str, float], run_id: str
    ) -> Description:
        spec = self.spec
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # an input may be missing in every row
            usual = np.nan_to_num(np.nanmedian(data.x[parts.fit], axis=0))
        return Description(
            spec.name, version, spec.version, spec.entity, spec.subject_type, data.inputs, spec.outputs,
            spec.score,
            hashlib.sha256(onnx).hexdigest(), data.as_of_ms, run_id, tuple(float(each) for each in usual),
            spec.rules, {k: v for k, v in metrics.items() if np.isfinite(v)}, data.origin,
        )  # fmt: skip

    def _champion(self) -> Session | None:
        if self.job.champion is None:
            return None
        try:
            return Session(Path(self.job.champion))
        except DealerIQError as error:
            self.warnings.append(f"the champion cannot be asked, and is not compared with: {error}")
            return None

    def _ask(self, champion: Session | None, data: TrainingSet, parts: Parts) -> NDArray[np.float64] | None:
        """The champion's answers to the same rows, from its own inputs."""
        if champion is None:
            return None
        try:
            vectors = data.vectors(champion.description.inputs, parts.holdout)
        except InputsError as error:
            self.warnings.append(
                f"the champion reads what this training does not have, and is not compared: {error}"
            )
            return None
        if champion.description.outputs != self.spec.outputs:
            self.warnings.append("the champion gives other outputs, and is not compared")
            return None
        return champion.run(vectors).astype(np.float64)

    def _judge(
        self,
        data: TrainingSet,
        parts: Parts,
        answers: NDArray[np.float64],
        baseline: NDArray[np.float64],
        champion: NDArray[np.float64] | None,
        cost: Cost,
    ) -> Verdict:
        at, spec = parts.holdout, self.spec
        segments = {**spec.segments(data), "cold": spec.cold(data)}
        who = "dealer_id" if "dealer_id" in data.frame.column_names else spec.entity[0]
        _, groups = np.unique(data.key(who)[at].astype(str), return_inverse=True)
        return judge(
            spec.metrics, spec.gate, spec.limits, spec.truth(data, at), answers, baseline, champion,
            groups.astype(np.int64),
            {name: rows[at] for name, rows in segments.items()}, cost, seed=self.job.seed,
        )  # fmt: skip

    def _begin(self) -> tuple[Mlflow | None, str]:
        job, spec = self.job, self.spec
        parameters = {
            "spec_version": spec.version, "seed": job.seed, "label": spec.label.text,
            "horizon_days": spec.label.horizon_ms / 86_400_000, "inputs": len(spec.inputs),
        }  # fmt: skip
        try:
            mlflow = Mlflow(MlflowSettings(**job.mlflow), Path(job.data_dir))
            return mlflow, mlflow.begin(spec.name, job.request, parameters)
        except MlflowUnavailableError as error:
            self.warnings.append(str(error))
            return None, ""

    def _finish(
        self, mlflow: Mlflow | None, result: Result, data: TrainingSet, facts: Facts, fitted: Fitted
    ) -> None:
        if mlflow is None:
            return
        told = json.dumps(data.origin, sort_keys=True)
        digest = hashlib.sha256(f"{told}{data.as_of_ms}".encode()).hexdigest()
        metrics = dict(result.metrics)
        for name, of in (("baseline", result.baseline), ("champion", result.champion)):
            metrics |= {f"{name}_{key}": value for key, value in of.items()}
        metrics |= {f"missing_{name}": share for name, share in facts.missing.items()}
        names = [each.name for each in data.inputs]
        try:
            data_set = Dataset(
                self.spec.name, digest, told, json.dumps(facts.numbers()), dict.fromkeys(names, "float")
            )
            mlflow.learnt_from(result.run_id, data_set)
            mlflow.finish(
                result.run_id, self.spec.name, result.version, Path(result.folder), inputs=names,
                outputs=list(self.spec.outputs), metrics={**metrics, **result.facts},
                tags={
                    "verdict": result.text, "version": result.version, "warnings": "; ".join(result.warnings),
                },
            )  # fmt: skip
        except MlflowUnavailableError as error:
            result.warnings.append(str(error))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the model's folder; what a training that was killed left half written is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingBusyError(f"{folder.name} is being trained already") from None
        for stray in folder.glob(".*-*"):
            shutil.rmtree(stray, ignore_errors=True)
        yield


def _latency_ms(session: Session) -> float:
    """The p99 of one row in the calmest of some rounds: what else the machine does is not the model's cost."""
    return min(session.latency_ms(times=100) for _ in range(_ROUNDS))


def _told(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a file and write the result to another."""
    return answer(
        sys.argv[1:] if arguments is None else arguments,
        lambda job: asdict(train(Job(**job), lambda line: print(line, file=sys.stderr, flush=True))),
    )


if __name__ == "__main__":
    sys.exit(main())
