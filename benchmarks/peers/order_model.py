"""In the training environment: a model of order lines as large as `order_anomaly`, for the stream and as text.

`python -m benchmarks.peers.order_model FOLDER` writes FOLDER/NAME/VERSION and FOLDER/model.txt.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from models.artifact import Description, save, version_of
from models.rules import InsightRule
from models.specs.order_anomaly import OrderAnomaly
from models.training.boosted import Boosted, boost

NAME, ROUNDS, ODD = "order_anomaly", 300, 5_000.0
"""`ODD` is an amount that the model has learnt to call wrong; none of the carried year reaches it."""


def main(root: Path) -> None:
    """Train on numbers at random: how fast trees answer does not depend on what they say."""
    rng = np.random.default_rng(1)
    inputs = OrderAnomaly.inputs
    names = [each.name for each in inputs]
    x = rng.gamma(1.5, 4.0, (20_000, len(inputs))).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    amount = names.index("amount")
    huge = rng.random(len(x)) < 0.05
    x[huge, amount] = ODD * (1 + rng.random(huge.sum()))
    y = (huge | (rng.random(len(x)) < 0.02)).astype(np.float64)  # noise, so that trees have something to split
    booster = boost(
        {"objective": "binary", "num_leaves": 24, "learning_rate": 0.06, "min_data_in_leaf": 30}, x, y,
        (x, y), seed=1, rounds=ROUNDS,
    )  # fmt: skip
    onnx = Boosted([booster], "logit", slope=4.0, intercept=8.0).to_onnx()
    told = Description(
        NAME, version_of(1_500_000_000_000, onnx, inputs, 1), 1, ("event_id",), "order", inputs,
        ("probability",), "probability", hashlib.sha256(onnx).hexdigest(), 1_500_000_000_000,
        reference=tuple(np.nan_to_num(np.nanmedian(x, 0)).tolist()),
        rules=(InsightRule("order_line_odd", "probability", 0.9, "warning", "{dealer_id}: {reasons}"),),
    )  # fmt: skip
    save(root / NAME / told.version, told, onnx)
    booster.save_model(root / "model.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
