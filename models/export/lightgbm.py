"""LightGBM boosters to a node of trees, by onnxmltools, with thresholds that decide as LightGBM's own."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

__all__ = ["tree_node"]

_CONVERTER_OPSET = 15  # the newest that onnxmltools writes; the node goes into a graph of ours


def tree_node(booster: Any, inputs: int) -> Any:
    """Return a TreeEnsembleRegressor of a booster's raw answers, before any link.

    LightGBM compares float64 thresholds, ONNX float32 ones. Vectors are float32, so the largest float32 that is
    not above a threshold decides exactly as the threshold itself; the nearest, which the converter writes, may
    not.
    """
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_lightgbm(
        _raw(booster),
        initial_types=[("input", FloatTensorType([None, inputs]))],
        target_opset=_CONVERTER_OPSET,
        zipmap=False,
    )
    (found,) = [each for each in model.graph.node if each.op_type == "TreeEnsembleRegressor"]
    thresholds = booster.trees_to_dataframe()["threshold"].dropna().unique()
    with np.errstate(over="ignore"):  # a threshold may be the largest float64: everything is below it
        exact = {float(np.float32(each)): float(each) for each in sorted(thresholds, reverse=True)}
    for attribute in found.attribute:
        if attribute.name == "nodes_values":
            attribute.floats[:] = [_not_above(each, exact.get(each, each)) for each in attribute.floats]
    return found


def _raw(booster: Any) -> Any:
    """The same trees under an objective without a link, so that the converter adds none."""
    from lightgbm import Booster

    text = re.sub(r"^objective=.*$", "objective=regression", booster.model_to_string(), count=1, flags=re.M)
    return Booster(model_str=text)


def _not_above(near: float, threshold: float) -> float:
    return float(np.nextafter(np.float32(near), np.float32(-np.inf))) if near > threshold else near
