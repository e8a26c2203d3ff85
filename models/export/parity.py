"""The gate of every export: the ONNX file answers as the library did, on real rows and on nasty ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.spec import Fitted
from schemas.errors import DealerIQError

__all__ = ["Parity", "ParityError", "check", "nasty"]

Vectors = NDArray[np.float32]
TOLERANCE = 1e-4
"""Of an answer's size or of 1, whichever is larger: float32 sums of some hundred trees differ behind the fifth
digit.
"""


class ParityError(DealerIQError):
    """The exported model does not answer as the trained one. It is not served."""

    remedy = (
        "Look at the rows and inputs named; usually a converter that treats missing values or ties otherwise."
    )
    exit_code = 5


@dataclass(frozen=True)
class Parity:
    """How far both were apart at most, of the answer's size, over how many rows."""

    rows: int
    largest: float


def check(fitted: Fitted, onnx: bytes, real: Vectors, seed: int = 0, tolerance: float = TOLERANCE) -> Parity:
    """Compare on real rows and on `nasty` ones made of them. Raises ParityError, naming the worst row."""
    import onnxruntime

    rows = np.concatenate([real, nasty(real, seed)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: rows})
    wanted = fitted.predict(rows)
    if found.shape != wanted.shape:
        raise ParityError(f"the ONNX file answers {list(found.shape)}, the model {list(wanted.shape)}")
    apart = np.abs(found - wanted) / np.maximum(np.abs(wanted), 1.0)
    apart[np.isnan(found) != np.isnan(wanted)] = np.inf
    apart = np.nan_to_num(apart, nan=0.0, posinf=np.inf)
    row, output = np.unravel_index(int(apart.argmax()), apart.shape)
    if apart[row, output] > tolerance:
        raise ParityError(
            f"output {output} of row {row} is {found[row, output]:.6g} in ONNX and {wanted[row, output]:.6g} "
            f"in the library; {tolerance:g} is allowed ({(apart > tolerance).sum()} of {apart.size} differ)"
        )
    return Parity(len(rows), float(apart.max()))


def nasty(real: Vectors, seed: int, count: int = 512) -> Vectors:
    """Return rows at the edges of what may come: missing values here, there and everywhere, zeros, extremes."""
    rng = np.random.default_rng(seed)
    some = real[rng.integers(0, len(real), count)].copy()
    some[rng.random(some.shape) < 0.3] = np.nan
    every = np.full((1, real.shape[1]), np.nan, np.float32)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an input may be missing in every row
        low, high = (np.nan_to_num(f(real, axis=0)) for f in (np.nanmin, np.nanmax))
    # One step beyond a value, where a threshold that was rounded falls on the wrong side.
    up = np.nextafter(real[:count], np.float32(np.inf))
    down = np.nextafter(real[:count], np.float32(-np.inf))
    edges = np.stack([low, high, high * 1_000, np.zeros_like(low)]).astype(np.float32)
    return np.concatenate([some, every, edges, up, down])
