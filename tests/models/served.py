"""A model trained on a lake and written as it is served, without a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from features.plan import load
from models.artifact import Description, save, version_of
from models.export.parity import check
from models.spec import TrainingSet
from models.specs import spec as spec_of
from models.training.sets import build, split


@dataclass(frozen=True)
class Made:
    """A served folder, and the metrics on the holdout beside the naive answer's."""

    folder: str
    version: str
    sha256: str
    metrics: dict[str, float]
    baseline: dict[str, float]


def made(name: str, lake: Path, root: Path, data: TrainingSet | None = None) -> Made:
    """Train a model on a lake, hold its ONNX file against it, and write it below `root`."""
    spec = spec_of(name)
    data = data or build(spec, load(), lake)
    parts = split(data)
    fitted = spec.train(data, parts.fit, parts.tune, 7)
    onnx = fitted.to_onnx()
    check(fitted, onnx, data.x[parts.holdout])
    version = version_of(data.as_of_ms, onnx, data.inputs, spec.version)
    digest = hashlib.sha256(onnx).hexdigest()
    told = Description(
        spec.name, version, spec.version, spec.entity, spec.subject_type, data.inputs, spec.outputs, spec.score,
        digest, data.as_of_ms,
    )  # fmt: skip
    truth, at = spec.truth(data, parts.holdout), parts.holdout
    return Made(
        str(save(root / name / version, told, onnx)), version, digest,
        spec.metrics(truth, fitted.predict(data.x[at])), spec.metrics(truth, spec.baseline(data, at)),
    )  # fmt: skip
