"""Whether a new version may be served: better than the naive answer and than the champion, on the same rows.

Differences are judged by their bootstrap intervals. Whole entities are drawn and not rows, because the rows of
one dealer are alike: an interval of rows would be too narrow (Field & Welsh, 2007). Everything is drawn with a
seed, so a verdict can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import Gate, Limits
from models.training.metrics import SMALLER

__all__ = ["Cost", "Interval", "Verdict", "compare", "gain", "judge"]

Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats, Floats | None], Mapping[str, float]]
_DRAWS = 200
_FEWEST = 30  # rows of a segment that is judged by itself


@dataclass(frozen=True)
class Interval:
    """By how much the new version is better (negative: worse), as a share of the other's value, with its
    interval.

    `new` and `other` are the metric's values. A share of 0.05 is five per cent less loss, or more of what
    counts.
    """

    new: float
    other: float
    gain: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Cost:
    """What a version costs: p99 of answering one row, ms; its file, MB; its training, s."""

    latency_p99_ms: float
    size_mb: float
    training_s: float


@dataclass(frozen=True)
class Verdict:
    """Promoted or not, every reason against it, and the numbers. `against` says which interval is which."""

    passed: bool
    reasons: list[str]
    against: dict[str, Interval] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The verdict in one sentence."""
        if not self.passed:
            return "refused: " + "; ".join(self.reasons)
        told = [f"{100 * each.gain:.1f} % better than the {name}" for name, each in self.against.items()]
        return "passed: " + ", ".join(each for each in told if "segment" not in each)


def compare(
    metric: Metric,
    name: str,
    truth: Floats,
    new: Floats,
    other: Floats,
    groups: NDArray[np.int64],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int = _DRAWS,
) -> Interval:
    """Return the gain of `new` over `other` in metric `name`, with its two-sided bootstrap interval over
    `groups`.
    """
    smaller = name in SMALLER
    rng = np.random.default_rng(seed)
    _, number = np.unique(groups, return_inverse=True)
    count = int(number.max()) + 1
    gains = []
    for _ in range(draws):
        weights = rng.multinomial(count, np.full(count, 1 / count)).astype(np.float64)[number]
        a, b = metric(truth, new, weights)[name], metric(truth, other, weights)[name]
        if np.isfinite(a) and np.isfinite(b):
            gains.append(gain(a, b, smaller))
    a, b = metric(truth, new, None)[name], metric(truth, other, None)[name]
    tail = (1 - confidence) / 2
    low, high = np.quantile(gains, [tail, 1 - tail]) if gains else (np.nan, np.nan)
    return Interval(float(a), float(b), gain(a, b, smaller), float(low), float(high), len(truth))


def _worse(
    metric: Metric, gate: Gate, truth: Floats, new: Floats, other: Floats, some: NDArray[np.bool_]
) -> bool:
    """Whether a segment looks bad enough for its interval to be worth drawing."""
    a, b = (metric(truth[some], each[some], None)[gate.metric] for each in (new, other))
    return gain(a, b, gate.metric in SMALLER) < -gate.segment_tolerance


def gain(new: float, other: float, smaller: bool) -> float:
    """Return by which share of the other's value the new one is better."""
    difference = other - new if smaller else new - other
    return difference / max(abs(other), 1e-12)


def judge(
    metric: Metric,
    gate: Gate,
    limits: Limits,
    truth: Floats,
    answers: Floats,
    baseline: Floats,
    champion: Floats | None,
    groups: NDArray[np.int64],
    segments: Mapping[str, NDArray[np.bool_]],
    cost: Cost,
    *,
    seed: int = 0,
) -> Verdict:
    """Return the verdict on a version's `answers` to the holdout; `champion` None where there is none yet.

    `segments` are parts of the holdout; one with few rows is not judged by itself.
    """
    against: dict[str, Interval] = {}
    reasons = []

    def interval(other: Floats, some: NDArray[np.bool_] | None = None) -> Interval:
        at = np.ones(len(truth), np.bool_) if some is None else some
        return compare(
            metric, gate.metric, truth[at], answers[at], other[at], groups[at],
            confidence=gate.confidence, seed=seed,
        )  # fmt: skip

    if not np.isfinite(answers).all():
        return Verdict(False, [f"{int((~np.isfinite(answers)).sum())} answers on the holdout are not numbers"])
    for name, other in (("naive answer", baseline), ("champion", champion)):
        if other is None:
            continue
        against[name] = found = interval(other)
        if not found.low > gate.margin:
            reasons.append(
                f"not better than the {name} in {gate.metric}: {found.new:.4g} against {found.other:.4g}, gain "
                f"{100 * found.gain:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}), needed above "
                f"{100 * gate.margin:.1f}"
            )
    for name, some in segments.items():
        if champion is None or some.sum() < _FEWEST or not _worse(metric, gate, truth, answers, champion, some):
            continue
        found = interval(champion, some)
        if np.isfinite(found.high) and found.high < -gate.segment_tolerance:
            against[f"segment {name}"] = found
            reasons.append(
                f"worse than the champion where {name}: {found.new:.4g} against {found.other:.4g} on "
                f"{found.rows} rows"
            )
    for what, value, most in (
        ("p99 of one row, ms", cost.latency_p99_ms, limits.latency_p99_ms),
        ("file, MB", cost.size_mb, limits.size_mb),
        ("training, s", cost.training_s, limits.training_s),
    ):
        if value > most:
            reasons.append(f"{what}: {value:.3g}, at most {most:g} is allowed")
    return Verdict(not reasons, reasons, against)
