"""Probabilities follow the share of positives where it has moved, and the file follows the model."""

from __future__ import annotations

import numpy as np
import pytest

from models.export.parity import check
from models.training import metrics
from models.training.linear import logistic


def test_a_regression_is_calibrated_by_the_latest_rows() -> None:
    """The same slopes, and from some row on twice the odds: all rows together would be off for the last."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(9_000, 4)).astype(np.float32)
    shift = np.where(np.arange(9_000) < 5_000, -1.2, 0.0)
    p = 1 / (1 + np.exp(-(x[:, 0] - 0.5 * x[:, 1] + shift)))
    y = (rng.random(9_000) < p).astype(np.float64)
    fit, tune, late = np.split(np.arange(9_000), [5_000, 7_000])
    model = logistic(x, y, fit, tune)
    told = model.predict(x[late])
    assert told.mean() == pytest.approx(p[late].mean(), abs=0.02)
    error = metrics.binary(y[late], told)["calibration_error"]
    assert error < 0.045  # some 0.03 is chance with so many rows in a bin
    all_alike = logistic(x, y, np.arange(7_000), np.arange(7_000)).predict(x[late])
    assert metrics.binary(y[late], all_alike)["calibration_error"] > 2 * error
    assert check(model, model.to_onnx(), x[late]).largest < 1e-5
