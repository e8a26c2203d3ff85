"""The online model of leads beside a fitted regression, a share and River, in the training environment."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import linear_model, optim
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.training.metrics import binary

__all__ = ["main"]

Floats = NDArray[np.float64]


def main() -> None:
    """Read the vectors, outcomes and answers of an npz file; write what is found of them as JSON."""
    given, out = map(Path, sys.argv[1:])
    with np.load(given) as held:
        names, x, truth, answers, conversations = (
            held[name] for name in ("names", "vectors", "outcomes", "answers", "conversations")
        )
    judged = _Judged(x, truth, answers, conversations)
    found = {
        "gains": {other: judged.gain(other) for other in ("prior", "static")},
        "table": judged.table(),
        "river, s": _river(names.tolist(), x, truth),
    }
    out.write_text(json.dumps(found))


class _Judged:
    """Answers of everybody to the last two thirds of the outcomes."""

    def __init__(self, x: Floats, truth: Floats, answers: Floats, conversations: NDArray[np.str_]) -> None:
        first = len(truth) // 3
        share = (np.cumsum(truth) - truth + 0.5) / (np.arange(len(truth)) + 1.0)
        static = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2_000))
        static.fit(x[:first], truth[:first])
        self.answers: dict[str, Floats] = {
            "online": answers[first:],
            "static": static.predict_proba(x[first:])[:, 1],
            "prior": share[first:],
        }
        self.truth = truth[first:]
        _, self._which = np.unique(conversations[first:], return_inverse=True)

    def losses(self, who: str) -> Floats:
        """Each outcome's log loss."""
        p = np.clip(self.answers[who], 1e-7, 1 - 1e-7)
        return np.asarray(-(self.truth * np.log(p) + (1 - self.truth) * np.log1p(-p)))

    def gain(self, other: str) -> tuple[float, float]:
        """How much less log loss the online model has than another: its interval."""
        return self._interval(self.losses(other) - self.losses("online"))

    def table(self) -> list[dict[str, Any]]:
        """Return a row for everybody."""
        rows = []
        for who, answers in self.answers.items():
            told = binary(self.truth, answers[:, None])
            low, high = self._interval(self.losses(who))
            rows.append(
                {"": who, "AUC": f"{told['auc']:.3f}", "log loss": f"{told['log_loss']:.4f}",
                 "95 %": f"{low:.4f} to {high:.4f}", "calibration error": f"{told['calibration_error']:.3f}"}
            )  # fmt: skip
        return rows

    def _interval(self, values: Floats) -> tuple[float, float]:
        total, count = np.bincount(self._which, values), np.bincount(self._which)
        drawn = np.random.default_rng(11).integers(0, len(total), (1_000, len(total)))
        means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        return round(float(low), 4), round(float(high), 4)


def _river(names: list[str], x: Floats, truth: Floats) -> float:
    """Seconds of River alone for the same outcomes: predict, then learn."""
    model = linear_model.LogisticRegression(optim.SGD(0.05), l2=1e-4, intercept_lr=0.05)
    rows = [(dict(zip(names, map(float, row), strict=True)), y > 0.5) for row, y in zip(x, truth, strict=True)]
    began = time.perf_counter()
    for each, y in rows:
        model.predict_proba_one(each)
        model.learn_one(each, y)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
