"""scikit-learn pipelines to ONNX nodes, by skl2onnx, in float64."""

from __future__ import annotations

from typing import Any

from models.export.graph import OPSET

__all__ = ["probability_nodes"]


def probability_nodes(pipeline: Any, inputs: int, given: str) -> tuple[list[Any], dict[str, Any], str]:
    """Return a classifier's nodes, their constants by name, and the name of its probabilities [n, classes].

    `given` names the tensor that it takes: float64 [n, inputs], nothing missing.
    """
    from onnx import numpy_helper
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    model = convert_sklearn(
        pipeline,
        initial_types=[(given, DoubleTensorType([None, inputs]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return list(model.graph.node), constants, model.graph.output[1].name
