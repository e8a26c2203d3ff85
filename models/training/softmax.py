"""One of several classes by a linear model of a text's vector: softmax regression, its rows weighted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.export.graph import FLOAT64, INPUT, OUTPUT, finished, node, rounded
from models.spec import Fitted

__all__ = ["Softmax", "bounded", "softmax"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
_NEVER = -30.0  # the logit of a class that nobody has shown


class Softmax(Fitted):
    """Probabilities of the classes, and the largest of them; what is missing is 0."""

    def __init__(self, weights: Floats, bias: Floats, strength: float) -> None:
        self.weights, self.bias, self.strength = weights, bias, strength

    def predict(self, x: Vectors) -> Floats:
        """Return float64 [rows, classes + 1]."""
        logits = np.nan_to_num(x.astype(np.float64), nan=0.0) @ self.weights + self.bias
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = grown / grown.sum(axis=1, keepdims=True)
        return np.column_stack([shares, shares.max(axis=1)])

    def to_onnx(self) -> bytes:
        """Return the same as one graph, in float64 up to its end.

        Classes are summed by products and not by MatMul, whose sums differ in the last bit between batches.
        """
        from onnx import helper

        inputs, classes = self.weights.shape
        constants = {
            "nothing": np.float32(0), "weights": self.weights[None], "bias": self.bias,
            "behind": np.array([2], np.int64), "inner": np.array([1], np.int64),
        }  # fmt: skip
        nodes = [
            node("IsNaN", [INPUT], "missing"),
            node("Where", ["missing", "nothing", INPUT], "known"),
            node("Cast", ["known"], "exact", to=FLOAT64),
            node("Unsqueeze", ["exact", "behind"], "column"),
            node("Mul", ["column", "weights"], "products"),
            node("ReduceSum", ["products", "inner"], "sums", keepdims=0),
            node("Add", ["sums", "bias"], "logits"),
            node("Softmax", ["logits"], "shares", axis=1),
            helper.make_node("ReduceMax", ["shares"], ["largest"], axes=[1], keepdims=1),
            node("Concat", ["shares", "largest"], "all", axis=1),
            rounded("all", OUTPUT),
        ]
        return finished(nodes, constants, inputs, classes + 1, "softmax")

    def facts(self) -> dict[str, float]:
        """Return the inverse strength of the regularisation that was chosen."""
        return {"C": self.strength}


def softmax(
    x: Vectors, y: NDArray[np.int64], weights: Floats, tune: NDArray[np.bool_], classes: int,
    strengths: tuple[float, ...] = (1.0, 5.0, 25.0),
) -> Softmax:  # fmt: skip
    """Return a softmax regression as strongly held as the rows `tune` like best, fitted on all rows.

    `weights` count rows. A class without a row gets no probability. Deterministic.
    """
    from sklearn.linear_model import LogisticRegression

    def fitted(strength: float, at: NDArray[Any]) -> Softmax:
        found = LogisticRegression(C=strength, max_iter=2_000, tol=1e-3).fit(
            x[at].astype(np.float64), y[at], sample_weight=weights[at]
        )
        matrix, bias = np.zeros((x.shape[1], classes)), np.full(classes, _NEVER)
        if len(found.classes_) == 2:  # one line for two classes
            matrix[:, found.classes_[1]], bias[found.classes_] = found.coef_[0], [0.0, found.intercept_[0]]
        else:
            matrix[:, found.classes_], bias[found.classes_] = found.coef_.T, found.intercept_
        return Softmax(matrix, bias, strength)

    losses = {}
    for strength in strengths:
        given = fitted(strength, ~tune).predict(x[tune])
        told = np.clip(given[np.arange(int(tune.sum())), y[tune]], 1e-7, 1.0)
        losses[strength] = float(-(weights[tune] * np.log(told)).sum())
    best = min(losses, key=lambda each: losses[each])
    return fitted(best, np.ones(len(x), np.bool_))


def bounded(sources: NDArray[Any], most: float = 1 / 3) -> Floats:
    """Return weights of rows with which no source counts for more than `most` of the whole.

    Of fewer than 1 / `most` sources the larger ones are cut to what the smallest has. 1 where nothing is cut.
    """
    _, number, counts = np.unique(sources.astype(str), return_inverse=True, return_counts=True)
    totals = np.sort(counts)[::-1].astype(np.float64)
    most, allowed = max(most, 1 / len(totals)), np.inf
    for cut in range(len(totals)):
        # With the `cut` largest at the bound b: b = most * (cut * b + the rest).
        allowed = most * totals[cut:].sum() / max(1 - cut * most, 1e-12)
        if totals[cut] <= allowed:
            break
    weights: Floats = np.minimum(1.0, allowed / counts)[number]
    return weights
