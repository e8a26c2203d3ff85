"""The report of a version: what it learnt from and how it does where it is hard, kept beside its file.

New entities, small ones, holidays and weekends are told apart, each with its share of positives, and beside the
naive answer: a mean over all rows hides them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gates import gain
from models.spec import DAY_MS, ModelSpec, TrainingSet
from models.training.holidays import holiday_days
from models.training.metrics import SMALLER

__all__ = ["calendar_parts", "calibration", "report", "slices"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_FEWEST = 30  # rows of a part that is told
_BINS = 10
_AHEAD = 7


def report(
    spec: ModelSpec,
    data: TrainingSet,
    at: NDArray[np.int64],
    answers: Floats,
    naive: Floats,
    numbers: Mapping[str, Mapping[str, float]],
    **told: Any,
) -> dict[str, Any]:
    """Return what `models.report` keeps of a version: its `answers` to the holdout `at`, and what is `told`.

    Of `numbers` those that are none are left out.
    """
    found: dict[str, Any] = {"model": spec.name, "as_of_ms": data.as_of_ms, **told}
    for name, some in numbers.items():
        found[name] = {key: value for key, value in some.items() if np.isfinite(value)}
    found["slices"] = slices(spec, data, at, answers, naive)
    if spec.label.kind == "yes":
        found["calibration"] = calibration(data.y[at], answers[:, spec.outputs.index(spec.score)])
    return found


def slices(
    spec: ModelSpec, data: TrainingSet, at: NDArray[np.int64], answers: Floats, naive: Floats
) -> list[dict[str, Any]]:
    """Return, for all rows `at`, the spec's segments, new entities and parts of the calendar, how many rows
    there are, their mean outcome (of a yes: the share), and the gate's metric beside the naive answer's.

    A part with fewer than 30 rows is left out; a metric that a part does not have (one class alone) is null.
    """
    parts: dict[str, Flags] = {"all": np.ones(len(data), np.bool_)}
    parts |= {**spec.segments(data), "cold": spec.cold(data), **calendar_parts(data.time)}
    truth, metric, found = spec.truth(data, at), spec.gate.metric, []
    for name, rows in parts.items():
        some = rows[at]
        if some.sum() < _FEWEST:
            continue
        new, other = (spec.metrics(truth[some], each[some])[metric] for each in (answers, naive))
        there = bool(np.isfinite(new) and np.isfinite(other))
        found.append(
            {
                "part": name,
                "rows": int(some.sum()),
                "mean": round(float(data.y[at][some].mean()), 4),
                "metric": metric,
                "value": float(new) if there else None,
                "naive": float(other) if there else None,
                "gain": round(gain(new, other, metric in SMALLER), 4) if there else None,
            }
        )
    return found


def calendar_parts(time: NDArray[np.int64]) -> Mapping[str, Flags]:
    """Return the rows with a public holiday in the week ahead and those without, and those of weekends."""
    day = time // DAY_MS
    holidays = np.asarray(holiday_days(time), np.int64)
    ahead = np.searchsorted(holidays, day + _AHEAD, "right") > np.searchsorted(holidays, day, "right")
    return {"holiday ahead": ahead, "no holiday ahead": ~ahead, "weekend": (day + 3) % 7 >= 5}


def calibration(truth: Floats, told: Floats) -> Sequence[dict[str, float]]:
    """Return, for ten bins of equally many rows, the mean of what was told and the share that came true."""
    order = np.argsort(told, kind="stable")
    return [
        {
            "rows": len(some),
            "told": round(float(told[some].mean()), 4),
            "seen": round(float(truth[some].mean()), 4),
        }
        for some in np.array_split(order, _BINS)
        if len(some)
    ]
