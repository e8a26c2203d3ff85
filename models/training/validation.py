"""A set is looked at before anything is trained on it: what cannot be right stops the training, with every
reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from features.history import TIME_COLUMN
from models.spec import TrainingSet
from models.training.sets import Parts
from schemas.errors import DealerIQError

__all__ = ["BadDataError", "Facts", "validate"]

_ALWAYS_MISSING = 0.999
_GUESSED = 0.9999


class BadDataError(DealerIQError):
    """The training set cannot be right. Nothing was trained."""

    remedy = "Look at the inputs and labels named: `dealeriq features history` gives the values of any row."
    exit_code = 6


@dataclass(frozen=True)
class Facts:
    """What a set is like, for the run and for people: shares are of rows, `missing` by input."""

    rows: dict[str, int]
    entities: int
    cold: float
    positives: float | None
    mean: float
    missing: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, float]:
        """Return the numbers, flat."""
        found = {f"rows_{name}": float(count) for name, count in self.rows.items()}
        found |= {"entities": float(self.entities), "cold_share": self.cold, "label_mean": self.mean}
        return found | ({} if self.positives is None else {"positive_share": self.positives})


def validate(data: TrainingSet, parts: Parts) -> Facts:
    """Check a set and tell what it is like.

    Raises BadDataError for labels of another kind, one class alone, rows that come twice, parts that overlap in
    time, nothing in most of the inputs, and an input that tells the label almost exactly (a leak). What is only
    odd is a warning.
    """
    spec, y = data.spec, data.y
    problems, warnings = [], []
    used = np.concatenate([parts.fit, parts.tune, parts.holdout])
    labels = y[used]
    yes = spec.label.kind == "yes"
    if not np.isfinite(labels).all():
        problems.append(f"{int((~np.isfinite(labels)).sum())} labels are not numbers")
    elif yes and not np.isin(labels, (0.0, 1.0)).all():
        problems.append("labels of yes and no are other than 0 and 1")
    elif np.ptp(labels) == 0:
        problems.append(f"every label is {labels[0]:g}: there is nothing to learn")
    elif yes:
        problems += [
            f"the rows to {name} are all of one class"
            for name in ("fit", "tune", "holdout")
            if np.ptp(y[getattr(parts, name)]) == 0
        ]
    keys = list(spec.entity)
    if twice := len(data) - _distinct(data, [*keys, TIME_COLUMN]):
        problems.append(f"{twice} rows are of the same {', '.join(spec.entity)} at the same time")
    gone = np.isnan(data.x[used]).mean(axis=0)
    missing = {each.name: round(float(gone[at]), 4) for at, each in enumerate(data.inputs)}
    empty = [name for name, share in missing.items() if share >= _ALWAYS_MISSING]
    if len(empty) > len(missing) / 2:
        problems.append(
            f"{len(empty)} of {len(missing)} inputs are always missing, {', '.join(empty[:3])} among them"
        )
    elif empty:
        warnings.append(f"always missing: {', '.join(empty)}")
    problems += [
        f"{name} tells the label almost exactly (rank correlation {r:.4f}): it leaks"
        for name, r in _telling(data, used)
    ]
    if yes and 0 < (share := float(labels.mean())) < 0.01:
        warnings.append(f"only {100 * share:.2f} % of the rows are positive")
    if problems:
        raise BadDataError(f"{spec.name}: " + "; ".join(problems))
    entities = _distinct(data, keys)
    rows = {name: len(getattr(parts, name)) for name in ("fit", "tune", "holdout")}
    cold = float(spec.cold(data)[used].mean())
    return Facts(
        rows, entities, cold, float(labels.mean()) if yes else None, float(labels.mean()), missing, warnings
    )


def _distinct(data: TrainingSet, columns: list[str]) -> int:
    return len(data.frame.select(columns).group_by(columns).aggregate([]))


def _telling(data: TrainingSet, used: np.ndarray) -> list[tuple[str, float]]:
    """Inputs whose ranks agree with the label's almost everywhere (Spearman)."""
    from scipy.stats import spearmanr

    some = used[:: max(1, len(used) // 20_000)]
    found = []
    for at, each in enumerate(data.inputs):
        column = data.x[some, at].astype(np.float64)
        good = np.isfinite(column)
        if good.sum() < 100 or np.ptp(column[good]) == 0 or np.ptp(data.y[some][good]) == 0:
            continue
        r = float(spearmanr(column[good], data.y[some][good]).statistic)
        if abs(r) > _GUESSED:
            found.append((each.name, r))
    return found
