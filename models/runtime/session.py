"""A served model: the folder's ONNX file in ONNX Runtime, checked against its description, warm before it
answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifact import ArtifactError, Description, load
from models.inputs import InputsError, assemble
from models.oip.call import TensorInfo
from models.providers import session_on
from models.settings import RuntimeSettings

__all__ = ["RuntimeSettings", "Session"]

Vectors = NDArray[np.float32]
_WARM_UP = (1, 16, 256)  # sizes of batches that are answered before the first real one


class Session:
    """One version, ready to answer. Threads may share it.

    Raises ArtifactError at construction for a folder that is damaged, or whose ONNX file does not take and give
    what its description says; what is loaded has answered already.
    """

    def __init__(self, folder: Path, settings: RuntimeSettings | None = None) -> None:
        import onnxruntime

        settings = settings or RuntimeSettings()
        self.folder = folder
        self.description, onnx = load(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        # A spinning thread takes a core from the services beside us.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = session_on(settings.provider, onnx, options)
        except Exception as error:
            raise ArtifactError(f"the ONNX file in {folder} does not run here: {error}") from error
        self._check()
        self.providers: list[str] = self._session.get_providers()
        self._batch = settings.batch_size
        self._output = [self._session.get_outputs()[0].name]
        self._input = self._session.get_inputs()[0].name
        self._place = self.description.outputs.index(self.description.score)
        self.warm_up()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.description.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.description.version

    @property
    def tensors(self) -> tuple[TensorInfo, TensorInfo]:
        """The file's one input and its one output, as the Open Inference Protocol describes them."""
        told = self.description
        columns = tuple(each.name for each in told.inputs)
        return (
            TensorInfo(self._input, "FP32", (-1, len(columns)), columns),
            TensorInfo(self._output[0], "FP32", (-1, len(told.outputs)), told.outputs),
        )

    def vectors(self, columns: Mapping[str, Any], time_ms: NDArray[np.int64]) -> Vectors:
        """Return the vectors of rows: `view__feature`, `@field` and key columns, and each row's time.

        The same function made those that it was trained on. Raises InputsError for a missing column.
        """
        return assemble(self.description.inputs, columns, time_ms)

    def run(self, vectors: Vectors) -> Vectors:
        """Return every output, float32 [rows, outputs]. NaN is missing. Raises InputsError for another
        shape.
        """
        width = len(self.description.inputs)
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise InputsError(f"{self.name} takes [rows, {width}], and got {list(vectors.shape)}")
        if vectors.dtype != np.float32:
            vectors = vectors.astype(np.float32)
        if len(vectors) <= self._batch:
            return (
                self._ask(vectors) if len(vectors) else np.empty((0, len(self.description.outputs)), np.float32)
            )
        parts = [self._ask(vectors[at : at + self._batch]) for at in range(0, len(vectors), self._batch)]
        return np.concatenate(parts)

    def scores(self, answers: Vectors) -> NDArray[np.float64]:
        """Return the output that is the score."""
        return answers[:, self._place].astype(np.float64)

    def warm_up(self) -> None:
        """Answer batches of several sizes, so that the first real one finds everything allocated."""
        rng = np.random.default_rng(0)
        for rows in _WARM_UP:
            self.run(rng.random((rows, len(self.description.inputs)), np.float32))

    def latency_ms(
        self, rows: int = 1, times: int = 500, clock: Callable[[], float] = time.perf_counter
    ) -> float:
        """Return the 99th percentile of answering `rows` rows, ms."""
        rng = np.random.default_rng(1)
        batch = rng.random((rows, len(self.description.inputs)), np.float32)
        taken = []
        for _ in range(times):
            began = clock()
            self.run(batch)
            taken.append(clock() - began)
        return float(np.quantile(taken, 0.99)) * 1000

    def _ask(self, vectors: Vectors) -> Vectors:
        found: Vectors = self._session.run(self._output, {self._input: vectors})[0]
        return found

    def _check(self) -> None:
        """Hold the file's own shapes against the description."""
        told: Description = self.description
        given, wanted = self._session.get_inputs(), self._session.get_outputs()
        shapes = [(each.type, each.shape[-1] if each.shape else None) for each in (*given, *wanted)]
        expected = [("tensor(float)", len(told.inputs)), ("tensor(float)", len(told.outputs))]
        if shapes != expected:
            raise ArtifactError(
                f"the ONNX file in {self.folder} takes and gives {shapes}, and its description says "
                f"{expected}: it is of another model"
            )
        if told.score not in told.outputs:
            raise ArtifactError(f"{told.name}: the score {told.score!r} is none of the outputs {told.outputs}")
