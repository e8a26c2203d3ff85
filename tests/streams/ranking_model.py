"""Small real rankers: one that likes what is ordered most, one that likes what is ordered least."""

import hashlib
from functools import cache

import numpy as np

from models.artifact import Description, save, version_of
from models.specs.next_best_products import NextBestProducts
from streams.recommend.ranker import MODEL


@cache
def trained(most):
    """The ONNX file of a ranker whose probability grows with the orders of a product, or falls."""
    from models.training.boosted import Boosted, boost

    names = [each.name for each in NextBestProducts.inputs]
    rng = np.random.default_rng(1)
    x = rng.gamma(1.0, 3.0, (4_000, len(names))).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    orders = np.nan_to_num(x[:, names.index("orders")])
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-(orders - 3.0) * (1 if most else -1)))).astype(np.float64)
    parameters = {"objective": "binary", "num_leaves": 7, "learning_rate": 0.3}
    return Boosted([boost(parameters, x, y, (x, y), seed=1, rounds=30)], "logit").to_onnx()


def folder(root, *, most=True, **more):
    """Write a version; return its folder and description."""
    spec, onnx = NextBestProducts(), trained(most)
    version = version_of(1_500_000_000_000, onnx, spec.inputs, spec.version)
    given = {
        "name": MODEL, "version": version, "spec_version": 1, "entity": spec.entity,
        "subject_type": spec.subject_type, "inputs": spec.inputs, "outputs": spec.outputs,
        "score": spec.score, "sha256": hashlib.sha256(onnx).hexdigest(), "as_of_ms": 1_500_000_000_000,
    }  # fmt: skip
    told = Description(**given | more)
    return save(root / MODEL / told.version, told, onnx), told
