"""A small real model of order lines, as a served folder, and order lines for it."""

from __future__ import annotations

import hashlib
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.artifact import Description, save, version_of
from models.inputs import Code, EventField, Feature, Input, Ratio
from models.rules import InsightRule

INPUTS: tuple[Input, ...] = (
    EventField("quantity", "quantity"),
    EventField("amount", "amount"),
    Feature("product_mean", "product_demand", "quantity_mean_90d"),
    Feature("product_std", "product_demand", "quantity_std_90d"),
    Feature("category_largest", "dealer_category_orders", "amount_max_90d"),
    Feature("dealer_mean", "dealer_orders", "amount_mean_30d"),
    Ratio("over_usual", "quantity", "product_mean"),
    Code("kind", "category", ("FUEL", "GROCERY")),
)
RULE = InsightRule("odd", "odd", 0.5, "warning", "A line of {dealer_id} looks odd ({score:.0%}): {reasons}.")


@cache
def trained(seed: int) -> bytes:
    """The ONNX file of a model whose answer grows with the amount."""
    from models.training.boosted import Boosted, boost

    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, 20.0, (2_000, len(INPUTS))).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 1]) > 70).astype(np.float64)
    booster = boost({"objective": "binary", "num_leaves": 15}, x, y, (x, y), seed=seed, rounds=40)
    return Boosted([booster], "logit", slope=1.0, intercept=0.0).to_onnx()


def line_model(root: Path, name: str, seed: int = 1, **more: Any) -> tuple[Path, Description]:
    """Write a version and return its folder and description."""
    onnx = trained(seed)
    given: dict[str, Any] = {
        "version": version_of(1_500_000_000_000 + seed, onnx, INPUTS, 1), "spec_version": 1,
        "entity": ("event_id",), "subject_type": "order", "inputs": INPUTS, "outputs": ("odd",), "score": "odd",
        "sha256": hashlib.sha256(onnx).hexdigest(), "as_of_ms": 1_500_000_000_000,
        "reference": (1.0, 10.0, 1.0, 0.5, 40.0, 10.0, 1.0, 0.0), "rules": (RULE,),
    }  # fmt: skip
    told = Description(name, **given | more)
    return save(root / name / told.version, told, onnx), told


def order(number: int, rng: random.Random, at_ms: int, tag: str = "") -> dict[str, Any]:
    """One line: dealers, products and categories of a few, amounts on both sides of the model's threshold."""
    return {
        "event_id": f"{tag}line-{number}", "order_id": f"{tag}order-{number // 3}", "line": number % 3,
        "dealer_id": f"{tag}d{rng.randrange(5)}", "product_id": f"{tag}p{rng.randrange(20)}",
        "customer_id": None, "category": rng.choice(["FUEL", "GROCERY", "NEVER SEEN"]), "brand": None,
        "quantity": rng.randrange(1, 9), "amount": round(rng.uniform(1, 120), 2), "discount": 0.0,
        "event_time": at_ms,
    }  # fmt: skip
