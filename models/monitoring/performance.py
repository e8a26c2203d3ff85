"""How well a version does: estimated before outcomes come, measured when they have, told in the gate's metric.

Both are a sum of losses over a sum of scales (rows, or amounts), so they read as the metric that the version
was judged by. The estimate is, for a calibrated probability p, its own expected loss: confidence-based
performance estimation (CBPE; Białek et al., "Estimating model performance under covariate shift without
labels", 2024). For a number it is direct loss estimation: the mean loss that reference rows with a score as
high had. Neither sees that outcomes no longer follow the inputs as they did; the measured one does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from models.monitoring.blocks import Blocks
from models.monitoring.reference import Reference
from models.spec import ModelSpec

__all__ = ["Estimator", "Losses", "WorseTest"]

Floats = NDArray[np.float64]
_STRATA = 20
_CLIP = 1e-7


@dataclass(frozen=True)
class Losses:
    """Each row's loss and scale; the metric is the sum of one over the sum of the other."""

    loss: Floats
    scale: Floats

    @property
    def value(self) -> float:
        """The metric; NaN where there is nothing to divide by."""
        total = float(self.scale.sum())
        return float(self.loss.sum()) / total if total > 0 else float("nan")


class Estimator:
    """The expected losses of answers whose outcomes are not known, learnt from a reference."""

    def __init__(self, spec: ModelSpec, reference: Reference) -> None:
        self._yes = spec.label.kind == "yes"
        self._score = spec.outputs.index(spec.score)
        answers = reference.answers.astype(np.float64)
        score = answers[:, self._score]
        self._edges = np.unique(np.quantile(score, np.linspace(0, 1, _STRATA + 1)[1:-1]))
        losses = spec.loss(reference.y, answers), spec.scale(reference.y)
        stratum = np.searchsorted(self._edges, score)
        counts = np.maximum(np.bincount(stratum, minlength=len(self._edges) + 1), 1)
        self._means = [np.bincount(stratum, each, len(self._edges) + 1) / counts for each in losses]

    def __call__(self, answers: NDArray[np.float32]) -> Losses:
        """Return the expected losses of answers [rows, outputs]."""
        score = answers[:, self._score].astype(np.float64)
        if self._yes:
            p = np.clip(score, _CLIP, 1 - _CLIP)
            return Losses(-(p * np.log(p) + (1 - p) * np.log1p(-p)), np.ones(len(p)))
        stratum = np.searchsorted(self._edges, score)
        loss, scale = (means[stratum] for means in self._means)
        return Losses(loss, scale)


class WorseTest:
    """Whether a window's metric is worse than the reference's by more than chance, which is drawn by block.

    `false_alarms` is the probability that a stationary window is called worse. `value` is the reference's.
    """

    def __init__(
        self, reference: Reference, losses: Losses, *, false_alarms: float, draws: int = 2_000, seed: int = 0
    ) -> None:
        self._blocks = Blocks(reference)
        self._sums = self._blocks.sums(np.column_stack([losses.loss, losses.scale]))
        self._false_alarms, self._draws, self._seed = false_alarms, draws, seed
        self.value = losses.value
        self._limits: dict[int, float] = {}
        self._wider = self._by_itself()
        freedom = float(self._blocks.freedom(np.array(self._wider**2)))
        self._tail = float(t.isf(false_alarms, freedom) / norm.isf(false_alarms)) if false_alarms < 0.5 else 1.0

    def limit(self, blocks: int) -> float:
        """Return the metric above which a window of `blocks` dealers is worse."""
        known = self._limits.get(blocks)
        if known is None:
            drawn = self._chance(blocks)
            worse = np.quantile(drawn, 1 - self._false_alarms, method="higher") if len(drawn) else np.inf
            known = self._limits[blocks] = self.value + self._wider * self._tail * float(worse)
        return known

    def _chance(self, blocks: int) -> Floats:
        """Differences of stationary windows from their references."""
        found = []
        for reference, window in self._blocks.draw(blocks, self._draws, self._seed):
            found.append(_ratio(window @ self._sums) - _ratio(reference @ self._sums))
        drawn = np.concatenate(found)
        return drawn[np.isfinite(drawn)]

    def _by_itself(self) -> float:
        """By how much weeks of the reference spread more than their dealers explain, at least 1."""
        rest, week = self._blocks.weeks(self._sums)
        apart = _ratio(week) - _ratio(rest)
        apart, drawn = apart[np.isfinite(apart)], self._chance(self._blocks.of_a_week)
        if not len(apart) or not len(drawn) or not (usual := float(np.mean(drawn**2))) > 0:
            return 1.0
        return max(1.0, float(np.sqrt(np.mean(apart**2) / usual)))


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]
