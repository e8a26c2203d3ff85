"""A number between two bounds by a linear model of a text's vector: ridge regression, its rows weighted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.export.graph import OUTPUT, exact_columns, finished, node, rounded
from models.spec import Fitted

__all__ = ["Ridge", "ridge"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


class Ridge(Fitted):
    """clip(x · weights + bias); what is missing is 0."""

    def __init__(self, weights: Floats, bias: float, bounds: tuple[float, float], strength: float) -> None:
        self.weights, self.bias, self.bounds, self.strength = weights, bias, bounds, strength

    def predict(self, x: Vectors) -> Floats:
        """Return float64 [rows, 1]."""
        found = np.nan_to_num(x.astype(np.float64), nan=0.0) @ self.weights + self.bias
        return np.clip(found, *self.bounds)[:, None]

    def to_onnx(self) -> bytes:
        """Return the same as one graph, in float64 up to its end; a row's sum is the same in any batch."""
        constants = {
            "nothing": np.float32(0), "weights": self.weights[:, None], "bias": np.float64(self.bias),
            "across": np.array([0], np.int64), "behind": np.array([1], np.int64),
            "least": np.float64(self.bounds[0]), "most": np.float64(self.bounds[1]),
        }  # fmt: skip
        nodes = [
            *exact_columns("columns"),
            node("Mul", ["columns", "weights"], "products"),
            node("ReduceSum", ["products", "across"], "sums", keepdims=0),
            node("Add", ["sums", "bias"], "free"),
            node("Clip", ["free", "least", "most"], "bounded"),
            node("Unsqueeze", ["bounded", "behind"], "answer"),
            rounded("answer", OUTPUT),
        ]
        return finished(nodes, constants, len(self.weights), 1, "ridge")

    def facts(self) -> dict[str, float]:
        """Return the strength of the regularisation that was chosen."""
        return {"alpha": self.strength}


def ridge(
    x: Vectors, y: Floats, weights: Floats, tune: NDArray[np.bool_], bounds: tuple[float, float],
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0),
) -> Ridge:  # fmt: skip
    """Return a ridge regression as strongly held as the rows `tune` like best, fitted on all rows.

    `weights` count rows. Deterministic.
    """
    from sklearn.linear_model import Ridge as Regression

    def fitted(strength: float, at: NDArray[np.bool_]) -> Ridge:
        found = Regression(alpha=strength).fit(x[at].astype(np.float64), y[at], sample_weight=weights[at])
        return Ridge(np.asarray(found.coef_, np.float64), float(found.intercept_), bounds, strength)

    def loss(strength: float) -> float:
        given = fitted(strength, ~tune).predict(x[tune])[:, 0]
        return float((weights[tune] * np.abs(given - y[tune])).sum())

    return fitted(min(strengths, key=loss), np.ones(len(x), np.bool_))
