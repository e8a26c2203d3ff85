"""Tensors as the protocol names them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DealerIQError

__all__ = ["DATATYPES", "ProtocolError", "Tensor", "datatype_of", "of_bytes", "of_values", "shape_of"]

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_), "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
}  # fmt: skip
"""The protocol's types of numbers, little-endian as they travel. BYTES and BF16 are not supported."""


class ProtocolError(DealerIQError):
    """A message is not what the Open Inference Protocol says, or holds a tensor that it must not."""

    remedy = "Compare the message with the model's metadata (`/v2/models/NAME`) and docs/serving.md."
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; its datatype follows from its dtype."""

    name: str
    array: NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of the type."""
        return datatype_of(self.array)


def datatype_of(array: NDArray[Any]) -> str:
    """Return the protocol's name of an array's type. Raises ProtocolError for one that it has not."""
    for name, dtype in DATATYPES.items():
        if array.dtype == dtype:
            return name
    raise ProtocolError(f"arrays of {array.dtype} have no datatype here")


def shape_of(name: str, shape: Any) -> tuple[int, ...]:
    """Return a shape that was given. Raises ProtocolError where it is no list of whole numbers from 0."""
    if not isinstance(shape, list | tuple) or not all(type(each) is int and each >= 0 for each in shape):
        raise ProtocolError(f"{name}: the shape must be a list of whole numbers from 0, and is {shape!r}")
    return tuple(shape)


def of_bytes(name: str, datatype: Any, shape: Sequence[int], raw: bytes | memoryview) -> Tensor:
    """Return a tensor of its bytes: row-major, little-endian. Raises ProtocolError."""
    dtype = _dtype(name, datatype)
    wanted = math.prod(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise ProtocolError(f"{name}: {datatype} {list(shape)} takes {wanted} bytes, and {len(raw)} came")
    return Tensor(name, np.frombuffer(raw, dtype).reshape(shape))


def of_values(name: str, datatype: Any, shape: Sequence[int], values: Any) -> Tensor:
    """Return a tensor of its values, flat or nested by rows; null is NaN where there is one. Raises
    ProtocolError.
    """
    dtype = _dtype(name, datatype)
    try:
        array = np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"{name}: the data are not all {datatype}: {error}") from error
    if array.size != math.prod(shape):
        raise ProtocolError(
            f"{name}: the shape {list(shape)} takes {math.prod(shape)} values, and {array.size} came"
        )
    return Tensor(name, array.reshape(shape))


def _dtype(name: str, datatype: Any) -> np.dtype[Any]:
    found = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if found is None:
        raise ProtocolError(f"{name}: datatype {datatype!r} is none of {', '.join(DATATYPES)}")
    return found
