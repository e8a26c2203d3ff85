"""Boosted trees (LightGBM) with what stands around them: an offset they correct, a link, calibration.

One class for quantiles and for probabilities. The same arithmetic is done by numpy in `predict` and by the
graph of `to_onnx`, so their parity is a real test of the export.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.export.graph import FLOAT64, INPUT, OUTPUT, finished, merged_trees, node, rounded
from models.export.lightgbm import tree_node
from models.spec import Fitted

__all__ = ["Boosted", "Offset", "Usual", "boost", "grow", "platt", "usual", "with_missing"]

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Offset:
    """log(1 + factor × input), 0 where it is missing: what the trees start from and correct, on a log scale."""

    column: int
    factor: float

    def of(self, x: Vectors) -> Floats:
        """Return it for rows."""
        return np.log1p(np.maximum(np.nan_to_num(x[:, self.column].astype(np.float64)), 0.0) * self.factor)


@dataclass(frozen=True)
class Usual:
    """What is usual for a row by one input, a probability: logistic in log(1 + input); missing is 0."""

    column: int
    slope: float
    intercept: float

    def of(self, x: Vectors) -> Floats:
        """Return it for rows."""
        return _sigmoid(self.slope * Offset(self.column, 1.0).of(x) + self.intercept)


class Boosted(Fitted):
    """Boosters of one input space, an output each.

    `link` "log": exp(offset + trees) - 1, at least 0, sorted so that quantiles do not cross. `link` "logit":
    1 / (1 + exp(-(slope × trees + intercept))), Platt's calibration; with `usual` a second output says by how
    much that is less than usual.
    """

    def __init__(
        self,
        boosters: list[Any],
        link: str,
        *,
        offset: Offset | None = None,
        slope: float = 1.0,
        intercept: float = 0.0,
        usual: Usual | None = None,
    ) -> None:
        self.boosters, self.link, self.offset, self.usual = boosters, link, offset, usual
        self.slope, self.intercept = slope, intercept

    def raw(self, x: Vectors) -> Floats:
        """Return the trees' own sums, [rows, outputs]."""
        return np.column_stack([each.predict(x, raw_score=True, num_threads=0) for each in self.boosters])

    def predict(self, x: Vectors) -> Floats:
        """Return the answers in float64."""
        raw = self.raw(x)
        if self.link == "log":
            start = self.offset.of(x)[:, None] if self.offset else 0.0
            return np.sort(np.maximum(np.expm1(raw + start), 0.0), axis=1)
        out = _sigmoid(self.slope * raw + self.intercept)
        return out if self.usual is None else np.column_stack([out, self.usual.of(x)[:, None] - out])

    def to_onnx(self) -> bytes:
        """Return trees, offset, link and calibration as one graph."""
        inputs, outputs, last = self.boosters[0].num_feature(), len(self.boosters), "ordered"
        nodes = [merged_trees([tree_node(each, inputs) for each in self.boosters], "trees")]
        nodes.append(node("Cast", ["trees"], "raw", to=FLOAT64))
        constants: dict[str, Any] = {}
        if self.link == "log":
            nodes += self._log(constants)
        else:
            constants |= {"slope": np.float64(self.slope), "intercept": np.float64(self.intercept)}
            nodes += [
                node("Mul", ["raw", "slope"], "scaled"),
                node("Add", ["scaled", "intercept"], "logit"),
                node("Sigmoid", ["logit"], "ordered"),
            ]
            if self.usual is not None:
                nodes += self._less_than_usual(self.usual, constants)
                outputs, last = outputs + 1, "both"
        nodes.append(rounded(last, OUTPUT))
        return finished(nodes, constants, inputs, outputs, "boosted")

    def facts(self) -> dict[str, float]:
        """Return the number of trees, and the calibration's line."""
        found = {"trees": float(sum(each.num_trees() for each in self.boosters))}
        return found | (
            {"platt_slope": self.slope, "platt_intercept": self.intercept} if self.link == "logit" else {}
        )

    @staticmethod
    def _less_than_usual(usual: Usual, constants: dict[str, Any]) -> list[Any]:
        constants |= {"steep": np.float64(usual.slope), "start": np.float64(usual.intercept)}
        return [
            *_logged(Offset(usual.column, 1.0), constants),
            node("Mul", ["offset", "steep"], "line"),
            node("Add", ["line", "start"], "odds"),
            node("Sigmoid", ["odds"], "usually"),
            node("Sub", ["usually", "ordered"], "less"),
            node("Concat", ["ordered", "less"], "both", axis=1),
        ]

    def _log(self, constants: dict[str, Any]) -> list[Any]:
        nodes, last = [], "raw"
        constants |= {"zero": np.float64(0), "one": np.float64(1)}
        if self.offset is not None:
            nodes += [*_logged(self.offset, constants), node("Add", ["raw", "offset"], "sum")]
            last = "sum"
        nodes += [
            node("Exp", [last], "grown"),
            node("Sub", ["grown", "one"], "less"),
            node("Max", ["less", "zero"], "answers"),
        ]
        if len(self.boosters) == 1:
            return [*nodes, node("Identity", ["answers"], "ordered")]
        from onnx import helper

        constants["count"] = np.array([len(self.boosters)], np.int64)
        order = helper.make_node(
            "TopK", ["answers", "count"], ["ordered", "places"], axis=1, largest=0, sorted=1
        )
        return [*nodes, order]


def _logged(offset: Offset, constants: dict[str, Any]) -> list[Any]:
    """Nodes that give `offset`, float64 [rows, 1]."""
    constants |= {
        "column": np.array([offset.column], np.int64), "factor": np.float64(offset.factor),
        "nothing": np.float32(0), "zero": np.float64(0), "one": np.float64(1),
    }  # fmt: skip
    return [
        node("Gather", [INPUT, "column"], "given", axis=1),
        node("IsNaN", ["given"], "missing"),
        node("Where", ["missing", "nothing", "given"], "known"),
        node("Cast", ["known"], "exact", to=FLOAT64),
        node("Max", ["exact", "zero"], "positive"),
        node("Mul", ["positive", "factor"], "scaled_input"),
        node("Add", ["scaled_input", "one"], "shifted"),
        node("Log", ["shifted"], "offset"),
    ]


def _sigmoid(logit: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-logit))
    return found


def boost(
    parameters: dict[str, Any],
    x: Vectors,
    y: Floats,
    tune: tuple[Vectors, Floats],
    *,
    seed: int,
    rounds: int,
    weights: tuple[Floats, Floats] | None = None,
    patience: int = 40,
) -> Any:
    """Return a booster that stopped when `tune` did not get better for `patience` rounds. Deterministic."""
    lightgbm, fixed = _lightgbm(seed)
    wanted = weights or (None, None)
    training = lightgbm.Dataset(x, y, weight=wanted[0], free_raw_data=False)
    judged = lightgbm.Dataset(*tune, weight=wanted[1], reference=training, free_raw_data=False)
    stop = lightgbm.early_stopping(patience, verbose=False)
    found = lightgbm.train(parameters | fixed, training, rounds, valid_sets=[judged], callbacks=[stop])
    # What comes behind the best round is dropped, so that the file holds what answers.
    return lightgbm.Booster(model_str=found.model_to_string(num_iteration=found.best_iteration))


def grow(
    parameters: dict[str, Any], x: Vectors, y: Floats, *, seed: int, rounds: int, weights: Floats | None = None
) -> Any:
    """Return a booster of so many rounds: those that `boost` found, where the rows that it judged by, the
    newest, are to be learnt from as well. Deterministic.
    """
    lightgbm, fixed = _lightgbm(seed)
    return lightgbm.train(parameters | fixed, lightgbm.Dataset(x, y, weight=weights), rounds)


def _lightgbm(seed: int) -> tuple[Any, dict[str, Any]]:
    """The library, and the parameters by which it grows the same trees from the same rows."""
    # Read when OpenMP is loaded: threads that wait would otherwise spin, and take the cores from what runs
    # beside.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightgbm

    return lightgbm, {
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "feature_pre_filter": False,
    }


def with_missing(x: Vectors, seed: int, share: float = 0.03) -> Vectors:
    """Return a copy in which some values of every input are missing.

    A view may be away and a category unseen at any time: the trees learn a way for it. It also makes LightGBM
    treat a missing value as missing in every input, and not as 0.
    """
    rng = np.random.default_rng(seed)
    out = x.copy()
    out[rng.random(out.shape) < share] = np.nan
    return out


def platt(raw: Floats, truth: Floats) -> tuple[float, float]:
    """Return slope and intercept that make `raw` scores calibrated log-odds (Platt, 1999, with his targets)."""
    from sklearn.linear_model import LogisticRegression

    positive, negative = float(truth.sum()), float((1 - truth).sum())
    if positive == 0 or negative == 0:
        return 1.0, 0.0
    high, low = (positive + 1) / (positive + 2), 1 / (negative + 2)
    target = np.where(truth == 1, high, low)
    stacked = np.concatenate([raw, raw]).reshape(-1, 1)
    line = LogisticRegression(C=1e6, max_iter=1_000)
    line.fit(stacked, np.repeat([1, 0], len(raw)), sample_weight=np.concatenate([target, 1 - target]))
    return float(line.coef_[0, 0]), float(line.intercept_[0])


def usual(x: Vectors, truth: Floats, column: int) -> Usual:
    """Return the logistic curve of one input's logarithm that tells `truth` best."""
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(C=1e6, max_iter=1_000).fit(Offset(column, 1.0).of(x).reshape(-1, 1), truth)
    return Usual(column, float(line.coef_[0, 0]), float(line.intercept_[0]))
