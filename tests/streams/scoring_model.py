"""Small real models for the tests of scoring: LightGBM on a dealer's categories, as a served folder."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.artifact import Description, save, version_of
from models.inputs import Code, Feature, Input, Ratio
from models.rules import InsightRule

VIEW = "dealer_category_orders"
INPUTS: tuple[Input, ...] = (
    Feature("week", VIEW, "amount_sum_7d"),
    Feature("month", VIEW, "amount_sum_30d"),
    Feature("count", VIEW, "count_7d"),
    Feature("dealer_month", "dealer_orders", "amount_sum_30d"),
    Ratio("trend", "week", "month", 30 / 7),
    Code("kind", "category", ("FUEL", "GROCERY")),
)
RULE = InsightRule(
    "busy",
    "high",
    100.0,
    "warning",
    "{subject_id} sells {score:.0f}: {reasons}.",
    hysteresis=20.0,
    cool_down_ms=0,
)


@cache
def trained(seed: int = 1, scale: float = 1.0) -> bytes:
    """The ONNX file of a model whose answer grows with the week's amount."""
    from models.training.boosted import Boosted, boost

    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, 60.0, (1_500, len(INPUTS))).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    y = np.log1p(np.nan_to_num(x[:, 0]) * scale)
    boosters = [
        boost({"objective": "quantile", "alpha": a, "num_leaves": 15}, x, y, (x, y), seed=seed, rounds=40)
        for a in (0.4, 0.6)
    ]
    return Boosted(boosters, "log").to_onnx()


def folder(
    root: Path, name: str, *, seed: int = 1, scale: float = 1.0, **more: Any
) -> tuple[Path, Description]:
    """Write a version and return its folder and description."""
    onnx = trained(seed, scale)
    given: dict[str, Any] = {
        "version": version_of(1_500_000_000_000 + seed, onnx, INPUTS, 1),
        "spec_version": 1,
        "entity": ("dealer_id", "category"),
        "subject_type": "dealer_category",
        "inputs": INPUTS,
        "outputs": ("low", "high"),
        "score": "high",
        "sha256": hashlib.sha256(onnx).hexdigest(),
        "as_of_ms": 1_500_000_000_000,
        "reference": (60.0, 120.0, 5.0, 200.0, 1.0, 0.0),
        "rules": (RULE,),
    }
    told = Description(name, **given | more)
    return save(root / name / told.version, told, onnx), told
