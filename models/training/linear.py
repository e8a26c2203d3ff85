"""Logistic regression (scikit-learn): few numbers, calibrated by its own loss, hard to beat where rows are
few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.export.graph import FLOAT64, INPUT, OUTPUT, finished, node, rounded
from models.export.sklearn import probability_nodes
from models.spec import Fitted
from models.training.boosted import platt

__all__ = ["Linear", "logistic"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


class Linear(Fitted):
    """A pipeline of scikit-learn that gives a probability; what is missing is 0."""

    def __init__(self, pipeline: Any, inputs: int, strength: float) -> None:
        self.pipeline, self.inputs, self.strength = pipeline, inputs, strength

    def predict(self, x: Vectors) -> Floats:
        """Return the probability of yes, float64 [rows, 1]."""
        out: Floats = self.pipeline.predict_proba(_known(x))[:, 1:]
        return out

    def to_onnx(self) -> bytes:
        """Return the pipeline as one graph, in float64 up to its end."""
        inside, constants, probabilities = probability_nodes(self.pipeline, self.inputs, "exact")
        constants |= {"nothing": np.float32(0), "yes": np.array([1], np.int64)}
        nodes = [
            node("IsNaN", [INPUT], "missing"),
            node("Where", ["missing", "nothing", INPUT], "known"),
            node("Cast", ["known"], "exact", to=FLOAT64),
            *inside,
            node("Gather", [probabilities, "yes"], "probability", axis=1),
            rounded("probability", OUTPUT),
        ]
        return finished(nodes, constants, self.inputs, 1, "linear")

    def facts(self) -> dict[str, float]:
        """Return the inverse strength of the regularisation that was chosen."""
        return {"C": self.strength}


def logistic(
    x: Vectors,
    y: Floats,
    fit: NDArray[np.int64],
    tune: NDArray[np.int64],
    strengths: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0),
    *,
    columns: Sequence[int] | None = None,
    latest: NDArray[np.int64] | None = None,
) -> Linear:
    """Return a logistic regression on scaled inputs, as strongly held as `tune` likes best, fitted on both
    parts, its line of log-odds set by the later one.

    A regression has the mean share of positives of all its rows, and is off where that moves with the seasons:
    Platt's two numbers bring it to the latest. So few cannot learn `tune` by heart, though it was fitted, too.

    Args:
        x: vectors.
        y: outcomes, 0 or 1.
        fit: rows to fit.
        tune: later rows.
        strengths: inverse strengths of the regularisation that are tried.
        columns: the inputs that it may weigh; all.
        latest: the rows that the line is set by, where those are not `tune`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weighed = np.arange(x.shape[1]) if columns is None else np.asarray(columns)

    def fitted(strength: float, rows: NDArray[np.int64]) -> Any:
        known = _known(x[rows])
        scaler, line = StandardScaler().fit(known), LogisticRegression(C=strength, max_iter=5_000)
        line.fit(scaler.transform(known)[:, weighed], y[rows])
        whole = np.zeros((1, x.shape[1]))
        whole[:, weighed] = line.coef_
        line.coef_, line.n_features_in_ = whole, x.shape[1]
        return make_pipeline(scaler, line)

    losses = {
        each: log_loss(y[tune], fitted(each, fit).predict_proba(_known(x[tune])), labels=[0.0, 1.0])
        for each in strengths
    }
    best = min(losses, key=lambda each: losses[each])
    model = fitted(best, np.concatenate([fit, tune]))
    late = tune if latest is None else latest
    slope, intercept = platt(model.decision_function(_known(x[late])), y[late])
    line = model[-1]  # a line of a line is a line: the pipeline stays what it is
    line.coef_, line.intercept_ = slope * line.coef_, slope * line.intercept_ + intercept
    return Linear(model, x.shape[1], best)


def _known(x: Vectors) -> Floats:
    return np.nan_to_num(x.astype(np.float64), nan=0.0)
