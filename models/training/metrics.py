"""The metrics that models are judged by, weighted, so that a bootstrap is a change of weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SMALLER",
    "absolute",
    "binary",
    "classes",
    "demand",
    "mase",
    "pinball",
    "poisson",
    "quantiles",
    "ranking",
]

Floats = NDArray[np.float64]

SMALLER = frozenset(
    {"wql", "mae", "mase", "calibration_error", "brier", "log_loss", "coverage_error", "deviance"}
)
"""Metrics of which less is better."""


def absolute(truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
    """Return metrics of a number: `mae`, and `bias`, the mean of what is too much."""
    w = np.ones(len(truth)) if weights is None else weights
    total = max(float(w.sum()), 1e-12)
    return {
        "mae": float((w * np.abs(truth - answers)).sum() / total),
        "bias": float((w * (answers - truth)).sum() / total),
    }


def quantiles(
    truth: Floats, answers: Floats, levels: Sequence[float], weights: Floats | None = None
) -> dict[str, float]:
    """Return metrics of quantile forecasts, `answers` [rows, levels].

    `wql`: twice the pinball loss over all levels, divided by the sum of the truth and averaged over the levels,
    as
    in Amazon's forecasting literature (Salinas et al., DeepAR, 2020). `mae` of the middle level;
    `coverage_error`: how far the share of truths between the outer levels is from what they promise.
    """
    w = np.ones(len(truth)) if weights is None else weights
    total = max(float((w * np.abs(truth)).sum()), 1e-12)
    middle = int(np.argmin(np.abs(np.asarray(levels) - 0.5)))
    inside = (truth >= answers[:, 0]) & (truth <= answers[:, -1])
    found = {
        "wql": float((w * pinball(truth, answers, levels)).sum()) / total,
        "mae": float((w * np.abs(truth - answers[:, middle])).sum() / max(float(w.sum()), 1e-12)),
    }
    if len(levels) > 1:
        share = float((w * inside).sum() / max(float(w.sum()), 1e-12))
        found["coverage"] = share
        found["coverage_error"] = abs(share - (levels[-1] - levels[0]))
    return found


def pinball(truth: Floats, answers: Floats, levels: Sequence[float]) -> Floats:
    """Return each row's pinball loss, twice its mean over the levels."""
    error, level = truth[:, None] - answers, np.asarray(levels)
    found: Floats = 2.0 * np.maximum(level * error, (level - 1) * error).mean(axis=1)
    return found


def classes(truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
    """Return metrics of one class of several, `answers` [rows, classes] as shares: `accuracy`, `macro_f1` over
    the classes that the truth has, and `log_loss`.
    """
    w = np.ones(len(truth)) if weights is None else weights
    given, wanted = answers.argmax(axis=1), truth.astype(np.int64)
    count = answers.shape[1]
    right = np.bincount(wanted[given == wanted], w[given == wanted], count)
    said, there = np.bincount(given, w, count), np.bincount(wanted, w, count)
    f1 = 2 * right / np.maximum(said + there, 1e-12)
    told = np.clip(answers[np.arange(len(truth)), wanted], 1e-7, 1.0)
    total = max(float(w.sum()), 1e-12)
    return {
        "accuracy": float(right.sum()) / total,
        "macro_f1": float(f1[there > 0].mean()) if (there > 0).any() else float("nan"),
        "log_loss": float(-(w * np.log(told)).sum() / total),
    }


def demand(truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
    """Return metrics of an expected demand: `deviance` (Poisson's, the mean of rows), `mae`, and `bias`: by
    which share the sum is too large.
    """
    w = np.ones(len(truth)) if weights is None else weights
    total = max(float(w.sum()), 1e-12)
    return {
        "deviance": float((w * poisson(truth, answers)).sum() / total),
        "mae": float((w * np.abs(truth - answers)).sum() / total),
        "bias": float((w * answers).sum() / max(float((w * truth).sum()), 1e-12)) - 1.0,
    }


def poisson(truth: Floats, answers: Floats) -> Floats:
    """Return each row's Poisson deviance, 0 where the answer is the truth."""
    expected = np.maximum(answers, 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.where(truth > 0, truth * np.log(truth / expected), 0.0)
    found: Floats = 2.0 * (told - (truth - expected))
    return found


def ranking(
    truth: Floats, answers: Floats, lists: Floats, weights: Floats | None = None, top: int = 10
) -> dict[str, float]:
    """Return metrics of lists whose rows are ranked by `answers`: `ndcg@10`, `recall@10` and `map`.

    `truth` is 1 for what is right, `lists` each row's list; means over the lists that have anything right. nDCG
    as Jaervelin & Kekaelaeinen (2002) with gains of 1, the average precision over the whole list. Equal answers
    keep the order of the rows. A list weighs as its rows do (they weigh alike).
    """
    _, number = np.unique(lists, return_inverse=True)
    order = np.lexsort((-answers, number))
    number, right = number[order], truth[order] > 0
    place = np.arange(len(order)) - np.searchsorted(number, number)
    count = int(number[-1]) + 1 if len(number) else 0
    many: Floats = np.bincount(number, right, count).astype(np.float64)
    of, at = number[right], place[right]
    found = at < top
    nth = np.arange(len(of)) - np.searchsorted(of, of) + 1.0
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(top) + 2.0))])
    some = many > 0
    best = ideal[np.minimum(many[some], top).astype(np.int64)]
    w = np.ones(count)
    if weights is not None:
        w[number] = weights[order]
    w, total = w[some], max(float(w[some].sum()), 1e-12)

    def summed(rows: NDArray[np.bool_], values: Floats) -> Floats:
        return np.bincount(of[rows], values[rows], count).astype(np.float64)

    def mean(of_list: Floats, over: Floats) -> float:
        return float((w * of_list[some] / over).sum() / total) if some.any() else float("nan")

    return {
        "ndcg@10": mean(summed(found, 1.0 / np.log2(at + 2.0)), best),
        "recall@10": mean(summed(found, np.ones(len(of))), many[some]),
        "map": mean(summed(at >= 0, nth / (at + 1.0)), many[some]),
    }


def mase(truth: Floats, answers: Floats, scale: Floats, weights: Floats | None = None) -> float:
    """Return the mean absolute scaled error: each row's error over `scale`, its series' in-sample naive error.

    Hyndman & Koehler, 2006. Rows whose scale is 0 or missing say nothing and are left out.
    """
    good = np.isfinite(scale) & (scale > 0)
    w = (np.ones(len(truth)) if weights is None else weights)[good]
    return float((w * np.abs(truth - answers)[good] / scale[good]).sum() / max(float(w.sum()), 1e-12))


def binary(truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
    """Return metrics of a probability: `auc`, `average_precision`, `brier`, `log_loss`, `calibration_error`.

    The calibration error is that of twenty bins of equally many rows (Naeini et al., 2015). One class alone has
    no AUC: NaN.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    w = np.ones(len(truth)) if weights is None else weights
    p = answers.reshape(len(truth))
    both = bool((w * truth).sum() > 0) and bool((w * (1 - truth)).sum() > 0)
    clipped, total = np.clip(p, 1e-7, 1 - 1e-7), max(float(w.sum()), 1e-12)
    losses = -(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped))
    return {
        "auc": float(roc_auc_score(truth, p, sample_weight=w)) if both else float("nan"),
        "average_precision": float(average_precision_score(truth, p, sample_weight=w))
        if both
        else float("nan"),
        "brier": float((w * (p - truth) ** 2).sum() / total),
        "log_loss": float((w * losses).sum() / total),
        "calibration_error": _calibration(truth, p, w),
    }


def _calibration(truth: Floats, p: Floats, w: Floats, bins: int = 20) -> float:
    order = np.argsort(p, kind="stable")
    w, truth, p = w[order], truth[order], p[order]
    edges = np.searchsorted(np.cumsum(w), np.linspace(0, w.sum(), bins + 1)[1:-1])
    error = 0.0
    for some in np.split(np.arange(len(p)), edges):
        if len(some):
            error += abs(float((w[some] * (p[some] - truth[some])).sum()))
    return error / max(float(w.sum()), 1e-12)
