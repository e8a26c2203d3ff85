"""What is served of a model that learns as it goes: its answer from a vector *and* its coefficients.

The coefficients of the moment are inputs, and travel with every score. So the file never changes while the
model does, a score of any moment is repeated from its record alone, and what is trained here is the one thing
that is fitted: how the learner's log-odds become a calibrated probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.export.graph import OUTPUT, exact_columns, finished, node, rounded
from models.spec import Fitted

__all__ = ["OnlineLinear"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


class OnlineLinear(Fitted):
    """sigmoid(slope · (x · w + b) + intercept) for rows of x, w and b; what is missing is 0.

    Args:
        numbers: how many inputs x has.
        slope: what the learner's log-odds are multiplied by; 1 where it is calibrated.
        intercept: what is added.
    """

    def __init__(self, numbers: int, slope: float = 1.0, intercept: float = 0.0) -> None:
        self.numbers, self.slope, self.intercept = numbers, slope, intercept

    def odds(self, x: Vectors) -> Floats:
        """Return the learner's own log-odds, float64 [rows]."""
        known = np.nan_to_num(x.astype(np.float64), nan=0.0)
        found: Floats = (known[:, : self.numbers] * known[:, self.numbers : -1]).sum(axis=1) + known[:, -1]
        return found

    def predict(self, x: Vectors) -> Floats:
        """Return the probability, float64 [rows, 1]."""
        with np.errstate(over="ignore"):
            out: Floats = 1.0 / (1.0 + np.exp(-(self.slope * self.odds(x) + self.intercept)))
        return out[:, None]

    def to_onnx(self) -> bytes:
        """Return the same as one graph, in float64 up to its end."""
        from onnx import helper

        constants = {
            "nothing": np.float32(0), "slope": np.float64(self.slope), "intercept": np.float64(self.intercept),
            "parts": np.array([self.numbers, self.numbers, 1], np.int64), "across": np.array([0], np.int64),
            "behind": np.array([1], np.int64),
        }  # fmt: skip
        nodes = [
            *exact_columns("columns"),
            helper.make_node("Split", ["columns", "parts"], ["x", "w", "b"], axis=0),
            node("Mul", ["x", "w"], "products"),
            node("ReduceSum", ["products", "across"], "sums", keepdims=0),
            node("Squeeze", ["b", "across"], "bias"),
            node("Add", ["sums", "bias"], "odds"),
            node("Mul", ["odds", "slope"], "turned"),
            node("Add", ["turned", "intercept"], "calibrated"),
            node("Sigmoid", ["calibrated"], "chance"),
            node("Unsqueeze", ["chance", "behind"], "answer"),
            rounded("answer", OUTPUT),
        ]
        return finished(nodes, constants, 2 * self.numbers + 1, 1, "online_linear")

    def facts(self) -> dict[str, float]:
        """Return how far the learner was from calibrated."""
        return {"calibration_slope": self.slope, "calibration_intercept": self.intercept}
