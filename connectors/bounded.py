"""Whether events keep within the bounds of their schema, judged by the column."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.bounds import Bound, bounds

__all__ = ["surely_allowed"]


def surely_allowed(topic: str, table: pl.DataFrame) -> NDArray[np.bool_]:
    """Say which rows surely break no bound; those in doubt are judged one by one."""
    fine = [_inside(bound, table.schema[bound.field]) for bound in bounds(topic)]
    return table.select(pl.all_horizontal(pl.lit(True), *fine).alias("fine"))["fine"].to_numpy().copy()


def _inside(bound: Bound, kind: pl.DataType) -> pl.Expr:
    column = pl.col(bound.field)
    if kind == pl.String:
        size = column.str.len_bytes()
        fine = (size >= (bound.min_length or 0)) & (size <= (bound.max_length or 2**31))
        if bound.pattern is not None:
            fine &= column.str.contains(f"^(?:{bound.pattern})$")
    elif kind.is_numeric():
        low = -np.inf if bound.minimum is None else bound.minimum
        high = np.inf if bound.maximum is None else bound.maximum
        fine = (column >= low) & (column <= high)
        if kind.is_float():
            fine &= column.is_finite()
    else:
        return pl.lit(True)
    return fine.fill_null(True)
