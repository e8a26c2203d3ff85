"""The parts of rows of a dealer and a category that a gate looks at one by one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.spec import DAY_MS, TrainingSet

__all__ = ["begun_lately", "by_category_and_size"]

_LARGE = 8
_NEW = 28 * DAY_MS


def by_category_and_size(data: TrainingSet, size: str) -> Mapping[str, NDArray[np.bool_]]:
    """Return the rows of each of the eight largest categories, and of small and large dealers by a column."""
    category, sizes = data.key("category"), np.nan_to_num(data.column(size))
    names, counts = np.unique(category.astype(str), return_counts=True)
    middle = float(np.median(sizes))
    return {
        **{f"category={name}": category == name for name in names[np.argsort(-counts)][:_LARGE]},
        "dealer=small": sizes <= middle,
        "dealer=large": sizes > middle,
    }


def begun_lately(data: TrainingSet) -> NDArray[np.bool_]:
    """Return the rows of a dealer that began with the category less than four weeks before."""
    return np.asarray(data.frame["age_ms"].to_numpy() < _NEW)
