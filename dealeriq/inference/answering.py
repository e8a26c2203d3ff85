"""What the protocol asks, answered: the same for REST and gRPC."""

from __future__ import annotations

import math
import time
from importlib import metadata
from typing import Any

import numpy as np

from dealeriq.inference.versions import ServedVersions
from models.oip.call import InferAnswer, InferCall, TensorInfo
from models.oip.tensors import ProtocolError, Tensor
from models.runtime import Session
from streams.metrics import DURATION_BUCKETS, REGISTRY, BatchHistogram

__all__ = ["EXTENSIONS", "NAME", "Answering", "server_version"]

NAME = "dealeriq"
EXTENSIONS = ("binary_tensor_data",)
_PLATFORM = "onnxruntime_onnx"
_AT_ONCE = 64  # rows that are answered where they are read: another thread costs more than they do

SECONDS = BatchHistogram(
    "dealeriq_inference_seconds", "Seconds of the model in a request of the Open Inference Protocol", "model",
    DURATION_BUCKETS, REGISTRY,
)  # fmt: skip
ROWS = BatchHistogram(
    "dealeriq_inference_rows", "Rows of a request of the Open Inference Protocol", "model",
    (1, 4, 16, 64, 256, 1_024, 4_096, 16_384), REGISTRY,
)  # fmt: skip


def server_version() -> str:
    """Return the release that answers."""
    try:
        return metadata.version("dealeriq")
    except metadata.PackageNotFoundError:  # a source tree that was not installed
        return "0"


class Answering:
    """Answers calls with the served versions; threads may share it."""

    def __init__(self, versions: ServedVersions) -> None:
        self.versions = versions

    def quick(self, call: InferCall) -> bool:
        """Whether a call is answered at once: its version is loaded, and its rows are few."""
        rows = math.prod(call.inputs[0].array.shape[:1]) if call.inputs else 0
        return rows <= _AT_ONCE and self.versions.held(call.model, call.version) is not None

    def infer(self, call: InferCall) -> InferAnswer:
        """Answer a call.

        Raises ProtocolError for tensors that the model does not take, NoSuchModelError, NoSuchVersionError,
        ArtifactError where the version cannot be served, RemoteUnavailableError.
        """
        session = self.versions.session(call.model, call.version)
        given, told = session.tensors
        tensor = call.input(given.name)
        _check(call.model, tensor, given)
        if unknown := [name for name in call.outputs if name != told.name]:
            raise ProtocolError(f"{call.model} has no output {unknown[0]!r}; it has {told.name!r}")
        began = time.perf_counter()
        answers = session.run(np.ascontiguousarray(tensor.array))
        SECONDS.observe_repeated(call.model, time.perf_counter() - began, 1)
        ROWS.observe_repeated(call.model, len(answers), 1)
        return InferAnswer(call.model, session.version, [Tensor(told.name, answers)], call.id)

    def model(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's metadata. Raises as `infer`."""
        session = self.versions.session(model, version)
        given, told = session.tensors
        return {
            "name": model,
            "versions": list(self.versions.state(model).versions) if not version else [session.version],
            "platform": _PLATFORM,
            "inputs": [_told(given)],
            "outputs": [_told(told)],
            "parameters": _about(session),
        }

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether a version answers. Raises NoSuchModelError, NoSuchVersionError, ArtifactError."""
        return self.versions.session(model, version) is not None


def _check(model: str, tensor: Tensor, info: TensorInfo) -> None:
    shape = tensor.array.shape
    if tensor.datatype != info.datatype:
        raise ProtocolError(f"{model} takes {info.datatype} for {info.name!r}, and got {tensor.datatype}")
    if len(shape) != 2 or shape[1] != info.shape[1]:
        raise ProtocolError(f"{model} takes the shape {list(info.shape)}, and got {list(shape)}")


def _told(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name, "datatype": info.datatype, "shape": list(info.shape),
        "parameters": {"columns": ",".join(info.columns)},
    }  # fmt: skip


def _about(session: Session) -> dict[str, str]:
    told = session.description
    return {
        "version": told.version, "score": told.score, "sha256": told.sha256, "run_id": told.run_id,
        "entity": ",".join(told.entity),
    }  # fmt: skip
