"""Whether events keep within the bounds of their schema, judged by the column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.bounds import Bound, bounds

__all__ = ["surely_allowed"]


def surely_allowed(topic: str, table: pa.Table) -> NDArray[np.bool_]:
    """Say which rows surely break no bound; those in doubt are judged one by one."""
    fine = np.ones(len(table), bool)
    for bound in bounds(topic):
        fine &= _inside(bound, table[bound.field].combine_chunks())
    return fine


def _inside(bound: Bound, column: Any) -> NDArray[np.bool_]:
    absent = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        size = pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        fine = (size >= (bound.min_length or 0)) & (size <= (bound.max_length or 2**31))
        if bound.pattern is not None:
            matches = pc.match_substring_regex(column, f"^(?:{bound.pattern})$")
            fine &= matches.fill_null(True).to_numpy(zero_copy_only=False)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = column.fill_null(0).to_numpy(zero_copy_only=False)
        low = -np.inf if bound.minimum is None else bound.minimum
        high = np.inf if bound.maximum is None else bound.maximum
        fine = (numbers >= low) & (numbers <= high) & np.isfinite(numbers)
    else:
        return np.ones(len(column), bool)
    return np.asarray(fine | absent, bool)
