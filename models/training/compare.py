"""Two served versions on the same rows of today's lake: `python -m models.training.compare JOB OUT`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from connectors.lake import Lake
from features.plan import load as load_plan
from models.gates import compare
from models.runtime import Session
from models.specs import spec as spec_of
from models.training.child import answer
from models.training.sets import build, split

__all__ = ["compare_versions", "main"]


def compare_versions(job: dict[str, Any]) -> dict[str, Any]:
    """Return both versions' metrics on the newest holdout, the naive answer's, and the gain with its interval.

    `job` has `model`, `lake`, `lake_options`, `new` and `other` (served folders), `memory_mb`.
    """
    spec = spec_of(job["model"])
    new, other = (Session(Path(job[name])) for name in ("new", "other"))
    extra = (*new.description.inputs, *other.description.inputs)
    lake = Lake(job["lake"], job["lake_options"])
    data = build(spec, load_plan(), lake, extra=extra, memory_mb=job["memory_mb"])
    at = split(data).holdout
    truth, groups = spec.truth(data, at), _groups(data.key(spec.entity[0])[at])
    answers = {
        each.version: each.run(data.vectors(each.description.inputs, at)).astype(np.float64)
        for each in (new, other)
    }
    gain = compare(
        spec.metrics, spec.gate.metric, truth, answers[new.version], answers[other.version], groups,
        confidence=spec.gate.confidence,
    )  # fmt: skip
    return {
        "model": spec.name,
        "rows": len(at),
        "from_ms": int(data.time[at].min()),
        "until_ms": int(data.time[at].max()),
        "metric": spec.gate.metric,
        "metrics": {
            **{version: spec.metrics(truth, each) for version, each in answers.items()},
            "naive answer": spec.metrics(truth, spec.baseline(data, at)),
        },
        "gain": asdict(gain),
    }


def _groups(keys: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.unique(keys.astype(str), return_inverse=True)[1].astype(np.int64)


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a file and write the comparison to another."""
    return answer(sys.argv[1:] if arguments is None else arguments, compare_versions)


if __name__ == "__main__":
    sys.exit(main())
