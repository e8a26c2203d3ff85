"""The contract of a model: one file, one `ModelSpec`. Adding one to `models/specs` touches no other file.

A spec says whom the model is about, what it reads, which later outcome it is to foretell, how it is trained and
judged, and when its score is worth telling. What trains is imported inside the methods: whoever only asks what
a model declares needs numpy and pyarrow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.inputs import Feature, Input, assemble, needed
from models.rules import InsightRule

if TYPE_CHECKING:
    import pyarrow as pa

    from models.training.events import Stream

__all__ = ["Fitted", "Gate", "Label", "Limits", "ModelSpec", "Split", "TrainingSet"]

DAY_MS = 86_400_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Label:
    """An outcome that arrives later in the stream.

    A row at time t is labelled by what happens in (t, t + `horizon_ms`] on `topic`; the outcome is known at
    t + `horizon_ms` + `delay_ms`, when late events have come, too. `kind` is `number` or `yes`.
    """

    topic: str
    horizon_ms: int
    delay_ms: int
    kind: str
    text: str

    @property
    def known_after_ms(self) -> int:
        """How long after a row's time its label is known."""
        return self.horizon_ms + self.delay_ms


@dataclass(frozen=True)
class Split:
    """How rows are split by time, from the newest labelled row backwards; between the parts, the label's delay.

    Boosting stops and probabilities are calibrated on `tune_ms`; `holdout_ms` is seen by the gates alone.
    """

    holdout_ms: int = 56 * DAY_MS
    tune_ms: int = 28 * DAY_MS


@dataclass(frozen=True)
class Gate:
    """What a new version must show on the holdout, in one metric of the spec.

    Better than the naive baseline, and than the champion, with the confidence stated: the bootstrap interval of
    the difference must lie on the good side by `margin` of the other's value. In no segment may it be worse
    than `segment_tolerance` of the champion's value with that confidence.
    """

    metric: str
    margin: float = 0.0
    segment_tolerance: float = 0.10
    confidence: float = 0.95


@dataclass(frozen=True)
class Limits:
    """What a version may cost: p99 of one row in the runtime, size of the file, time of a training."""

    latency_p99_ms: float = 5.0
    size_mb: float = 50.0
    training_s: float = 1_800.0


class Fitted(ABC):
    """A trained model, still in its library's hands."""

    @abstractmethod
    def predict(self, x: NDArray[np.float32]) -> Floats:
        """Return the library's own answers, float64 [rows, outputs]: what the ONNX file is held against."""

    @abstractmethod
    def to_onnx(self) -> bytes:
        """Return the model as ONNX: input `input` float32 [n, inputs], output `output` float32 [n, outputs]."""

    def facts(self) -> dict[str, float]:
        """Return numbers about the training worth keeping (trees, calibration), for the run."""
        return {}


@dataclass(frozen=True)
class TrainingSet:
    """Rows with their vectors and outcomes.

    `inputs` are the spec's, resolved. `frame` holds the entity keys, times, fields of scored events and every
    value that was read; `x` is float32 [rows, inputs] in the spec's order, NaN for missing; `y` the outcome,
    NaN where it was not known at `as_of_ms`. `origin` says which versions and positions of the lake all came
    from.
    """

    spec: ModelSpec
    inputs: tuple[Input, ...]
    frame: pa.Table
    x: NDArray[np.float32]
    y: Floats
    time: NDArray[np.int64]
    as_of_ms: int
    origin: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.time)

    def column(self, name: str) -> NDArray[Any]:
        """Return an input's values by its name, float32."""
        return self.x[:, [each.name for each in self.inputs].index(name)]

    def key(self, name: str) -> NDArray[Any]:
        """Return a key's values, text."""
        return np.asarray(self.frame[name].to_pylist(), dtype=object)

    def vectors(self, inputs: tuple[Input, ...], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of another version's inputs for rows; its columns must have been read
        (`extra`).
        """
        there = [name for name in needed(inputs) if name in self.frame.column_names]
        return assemble(inputs, {name: self.frame[name].take(at) for name in there}, self.time[at])


class ModelSpec(ABC):
    """One model. Subclasses set the class's values and implement the methods; see `models/specs` for examples.

    Raise `version` when inputs, label or training change: it is part of every version that comes out.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    entity: ClassVar[tuple[str, ...]]
    """Keys of what is scored, among the columns of `rows`; every view among the inputs has its keys there,
    too.
    """
    subject_type: ClassVar[str]
    """What a score is about, for `scores.subject_type`."""
    inputs: ClassVar[tuple[Input, ...]]
    label: ClassVar[Label]
    outputs: ClassVar[tuple[str, ...]]
    score: ClassVar[str]
    """The output that is the score."""
    split: ClassVar[Split] = Split()
    gate: ClassVar[Gate]
    limits: ClassVar[Limits] = Limits()
    rules: ClassVar[tuple[InsightRule, ...]] = ()
    lessons: ClassVar[str] = ""
    """Of a model that learns as it goes: the topic of what it learnt, each with the answer given before
    (`outcome`, `answer`). Its errors are watched there.
    """
    in_stream: ClassVar[bool] = True
    """Whether the stream scores it, so that a canary can be watched. Else what passes its gates is champion at
    once.
    """

    @abstractmethod
    def rows(self, stream: Stream) -> pa.Table:
        """Return whom and when to learn from: the entity keys, `event_timestamp` (ms), `@field` of scored
        events.

        `stream` holds what had happened by the time of training. A row may not depend on what came after its
        own time: training is refused where it does (`models.training.leaks`).
        """

    @abstractmethod
    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return each row's outcome; whether it can be known yet is judged by the caller."""

    def resolve(self, rows: pa.Table) -> tuple[Input, ...]:
        """Return the inputs with what only the rows can tell filled in: the values of a `Code`, days of
        holidays.

        Called once a training, before the inputs are computed; the names stay as declared.
        """
        return self.inputs

    @abstractmethod
    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit on the rows `fit`, stop and calibrate on `tune`. The same data and seed give the same model."""

    @abstractmethod
    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the naive answer for rows, [rows, outputs]: what anyone would say without a model."""

    @abstractmethod
    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return the metrics, the gate's among them; `weights` count rows more than once (bootstrap).

        Smaller is better for names in `models.training.metrics.SMALLER`, larger for the rest.
        """

    def truth(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return what `metrics` holds the answers of rows against: the outcomes; a ranking adds each row's
        list.
        """
        return data.y[at]

    def loss(self, truth: Floats, answers: Floats) -> Floats:
        """Return each row's loss, which live performance is told in; with `scale` it makes the gate's metric.

        By default the log loss of a probability, and the absolute error of a number.
        """
        given = answers[:, self.outputs.index(self.score)]
        if self.label.kind == "yes":
            p = np.clip(given, 1e-7, 1 - 1e-7)
            return np.asarray(-(truth * np.log(p) + (1 - truth) * np.log1p(-p)))
        return np.asarray(np.abs(truth - given))

    def scale(self, truth: Floats) -> Floats:
        """Return what the sum of losses is divided by, by row: 1, for a mean."""
        return np.ones(len(truth))

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return named parts of the rows that are judged by themselves."""
        return {}

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return which rows are of entities with hardly any history (reported, and judged as a segment)."""
        return np.zeros(len(data), np.bool_)

    def features(self) -> list[str]:
        """The features of the plan that it reads, `view.feature`."""
        return [f"{each.view}.{each.feature}" for each in self.inputs if isinstance(each, Feature)]

    def describe(self) -> dict[str, Any]:
        """Return the declarations, for people and JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "summary": self.summary,
            "entity": list(self.entity),
            "subject_type": self.subject_type,
            "inputs": [each.name for each in self.inputs],
            "label": self.label.text,
            "outputs": list(self.outputs),
            "score": self.score,
            "rules": [each.name for each in self.rules],
        }
