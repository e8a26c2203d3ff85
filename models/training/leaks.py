"""Nothing of the future may be in a vector: the same rows from a stream that ends earlier must be the same.

A set is made again as if the stream had ended at a moment (`cut`), and its vectors are compared with those of
the whole stream. Whatever way the future takes into an input (a row that depends on it, a window that reaches
too far, a field of a scored event that was filled in later), the two differ, and the input is named.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from connectors.lake import Root
from features.plan import Plan
from models.spec import ModelSpec, TrainingSet
from models.training.sets import build
from schemas.errors import DealerIQError

__all__ = ["LeakError", "check_leaks"]

_WINDOW_MS = 21 * 86_400_000  # rows this long before the cut are compared: those that a leak would reach


class LeakError(DealerIQError):
    """An input knows what happened after its row's time. Nothing was trained."""

    remedy = (
        "Mend the model's `rows` or the input's view; a row may depend on what happened by its own time only."
    )
    exit_code = 5


def check_leaks(
    spec: ModelSpec,
    plan: Plan,
    lake: Root,
    data: TrainingSet,
    *,
    window_ms: int = _WINDOW_MS,
    memory_mb: int = 768,
) -> int:
    """Compare the rows of some weeks with those of a stream that ended there; return how many were compared.

    The cut lies in the middle of the labelled rows, a part of a day off midnight. Raises LeakError, naming
    inputs and a row, also where the earlier stream gives other rows at all.
    """
    cut = int(np.median(data.time)) + 12_345_678

    def near(time: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (time > cut - window_ms) & (time <= cut)

    earlier = build(
        spec, plan, lake, as_of_ms=cut, inputs=data.inputs, labelled=False, rows_at=near, memory_mb=memory_mb
    )
    at = np.flatnonzero(near(data.time))
    before, now = _named(earlier, np.arange(len(earlier))), _named(data, at)
    if before.keys() != now.keys():
        odd = sorted(before.keys() ^ now.keys())
        raise LeakError(
            f"{spec.name}: {len(odd)} rows are there with the later stream and not without it, or the other "
            f"way round; the first is {odd[0]}: the choice of rows knows the future"
        )
    names = list(before)
    a, b = (x[[where[name] for name in names]] for x, where in ((earlier.x, before), (data.x, now)))
    differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if differ.any():
        row, first = np.argwhere(differ)[0]
        wrong = [data.inputs[i].name for i in np.flatnonzero(differ.any(axis=0))]
        raise LeakError(
            f"{spec.name}: {', '.join(wrong)} differ in {differ.any(axis=1).sum()} of {len(names)} rows when "
            f"what came later is taken away; at {names[row]}, {data.inputs[first].name} is {a[row, first]:g} "
            f"without it and {b[row, first]:g} with it"
        )
    return len(names)


def _named(data: TrainingSet, at: NDArray[np.int64]) -> dict[tuple[object, ...], int]:
    """Rows by their entity and time."""
    columns = [*(data.key(name)[at].tolist() for name in data.spec.entity), data.time[at].tolist()]
    return dict(zip(zip(*columns, strict=True), at.tolist(), strict=True))
