"""The online model of leads: River's logistic regression by stochastic gradient descent, one label at a time.

The rate is constant, so that it never stops moving: what was learnt fades with what is learnt anew, within some
hundred labels (Bottou, "Stochastic gradient descent tricks", 2012). One step is bounded (`clip_gradient`), so
no single label moves an answer far. The state is some dozen numbers, kept as JSON: it is written and read to
the bit, and nothing of a store is ever executed.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from models.leads.conversation import NAMES

__all__ = ["COEFFICIENTS", "Learner", "answer_of", "coefficient"]

RATE, SHRINK, STEEPEST = 0.05, 1e-4, 1.0


def answer_of(vector: Sequence[float], coefficients: Sequence[float]) -> float:
    """Return the probability that an order comes: `Learner.coefficients` applied to a vector."""
    odds = math.fsum(x * w for x, w in zip((*vector, 1.0), coefficients, strict=True))
    return 1.0 / (1.0 + math.exp(-max(-700.0, min(odds, 700.0))))


def coefficient(name: str) -> str:
    """Return what the coefficient of a number is called among a score's features."""
    return f"weight_{name}"


BIAS = "bias"
COEFFICIENTS: tuple[str, ...] = (*(coefficient(each) for each in NAMES), coefficient(BIAS))
"""Names of `Learner.coefficients`, in order."""


class Learner:
    """Learns. The same labels in the same order give the same state, to the bit."""

    def __init__(self) -> None:
        from river import linear_model, optim

        # The intercept learns as the weights do: an offset is as fresh as they are.
        self._model = linear_model.LogisticRegression(
            optimizer=optim.SGD(RATE), l2=SHRINK, intercept_lr=RATE, clip_gradient=STEEPEST
        )
        self.learnt = 0

    def learn(self, vector: Sequence[float], outcome: float, weight: float = 1.0) -> None:
        """Take one step towards what became of a lead; `weight` is at most 1, and at 0 nothing moves."""
        self.learnt += 1
        if weight > 0:
            self._model.learn_one(dict(zip(NAMES, vector, strict=True)), outcome > 0.5, w=weight)

    def coefficients(self) -> tuple[float, ...]:
        """Return the weights of `COEFFICIENTS`, in float32, in which they are served."""
        known = self._model.weights
        given = [*(known.get(each, 0.0) for each in NAMES), self._model.intercept]
        form = f"<{len(given)}f"
        return struct.unpack(form, struct.pack(form, *given))

    def dump(self) -> str:
        """Return the state as JSON: the same state, the same text."""
        known = self._model.weights
        return json.dumps(
            {
                "learnt": self.learnt,
                "steps": self._model.optimizer.n_iterations,
                "intercept": self._model.intercept,
                "weights": {each: known[each] for each in NAMES if each in known},
            }
        )

    @classmethod
    def load(cls, text: str) -> Learner:
        """Return the learner of a state. What it lacks of today's numbers has learnt nothing yet.

        Raises ValueError, KeyError or TypeError for what is no state.
        """
        from river.utils import VectorDict

        given: dict[str, Any] = json.loads(text)
        found = cls()
        found.learnt = int(given["learnt"])
        found._model.optimizer.n_iterations = int(given["steps"])
        found._model.intercept = float(given["intercept"])
        weights = {name: float(value) for name, value in given["weights"].items() if name in NAMES}
        if not all(map(math.isfinite, [found._model.intercept, *weights.values()])):
            raise ValueError("a coefficient is no number")
        # River has no public way to set weights; tests hold a learner that was loaded against one that went on.
        found._model._weights = VectorDict(weights)
        return found
