"""ONNX graphs around what the converters give: one input `input`, one output `output`, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "FLOAT64",
    "INPUT",
    "OPSET",
    "OUTPUT",
    "exact_columns",
    "finished",
    "merged_trees",
    "node",
    "rounded",
]

INPUT, OUTPUT = "input", "output"
_FLOAT32, FLOAT64 = 1, 11  # onnx.TensorProto
OPSET = {"": 17, "ai.onnx.ml": 3}
"""Operator sets that every runtime in use knows: ONNX Runtime, Triton, TensorRT's fallback."""


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    """Return a node with one output."""
    from onnx import helper

    return helper.make_node(kind, list(inputs), [output], **attributes)


def exact_columns(output: str) -> list[Any]:
    """Return the nodes that make the input [inputs, n] in float64, 0 for what is missing.

    They need the constant `nothing` (0, float32).

    What is then summed over the first axis is summed one after the other: a row's sum is the same in any batch.
    """
    return [
        node("IsNaN", [INPUT], "missing"),
        node("Where", ["missing", "nothing", INPUT], "known"),
        node("Cast", ["known"], "exact", to=FLOAT64),
        node("Transpose", ["exact"], output, perm=[1, 0]),
    ]


def rounded(given: str, output: str) -> Any:
    """Return the node that ends a computation in float64: one rounding to float32.

    float32's exp, log and sums differ in the last bit between a row alone and one in a batch (vector lanes and
    their rest), and a score must come out again to the bit.
    """
    return node("Cast", [given], output, to=_FLOAT32)


def finished(nodes: Sequence[Any], constants: dict[str, Any], inputs: int, outputs: int, name: str) -> bytes:
    """Return the checked model of nodes from `input` to `output`; `constants` are numpy arrays by name."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="dealeriq")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def merged_trees(trees: Sequence[Any], output: str) -> Any:
    """Return one TreeEnsembleRegressor that answers [n, trees]: one look at a row for all quantiles.

    Each of `trees` is a TreeEnsembleRegressor node of one target.
    """
    columns: dict[str, list[Any]] = {}
    shift = 0
    for target, each in enumerate(trees):
        given = {a.name: _value(a) for a in each.attribute}
        count = max(given["nodes_treeids"], default=-1) + 1
        for name, value in given.items():
            if isinstance(value, list) and (name.startswith(("nodes_", "target_"))):
                if name in ("nodes_treeids", "target_treeids"):
                    value = [tree + shift for tree in value]
                if name == "target_ids":
                    value = [target] * len(value)
                columns.setdefault(name, []).extend(value)
        if base := given.get("base_values"):
            columns.setdefault("base_values", []).extend(base)
        shift += count
    return node(
        "TreeEnsembleRegressor", [INPUT], output, domain="ai.onnx.ml", n_targets=len(trees),
        aggregate_function="SUM", post_transform="NONE", **columns,
    )  # fmt: skip


def _value(attribute: Any) -> Any:
    from onnx import helper

    found = helper.get_attribute_value(attribute)
    if isinstance(found, bytes):
        return found.decode()
    if isinstance(found, list | tuple) or hasattr(found, "__iter__"):
        return [each.decode() if isinstance(each, bytes) else each for each in found]
    return found
