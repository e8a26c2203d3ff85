"""Training sets: inputs from the point-in-time history, labels from what came later, split by time.

A set is as if it had been made at `as_of_ms`: nothing that happened later is read, and a row whose outcome was
not known by then has no label and is left out. Every input comes from `features.history`, or from the scored
event and the row's own time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.lake import Root, lake_of
from features.history import TIME_COLUMN, History
from features.plan import Plan
from models.inputs import Input, assemble, needed
from models.spec import ModelSpec, TrainingSet
from models.training.events import Stream
from schemas.errors import DealerIQError

__all__ = ["NotEnoughDataError", "Parts", "build", "split"]

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


class NotEnoughDataError(DealerIQError):
    """There are not enough labelled rows to train on and to judge by. Nothing was trained."""

    remedy = "Wait until more of the stream is in the lake, or train as of a later time."
    exit_code = 6


@dataclass(frozen=True)
class Parts:
    """Indices of rows, each part later than the one before by at least the label's delay."""

    fit: Longs
    tune: Longs
    holdout: Longs


def build(
    spec: ModelSpec,
    plan: Plan,
    lake: Root,
    *,
    as_of_ms: int | None = None,
    inputs: tuple[Input, ...] | None = None,
    extra: tuple[Input, ...] = (),
    labelled: bool = True,
    rows_at: Callable[[Longs], NDArray[np.bool_]] | None = None,
    memory_mb: int = 768,
) -> TrainingSet:
    """Return the set of a spec as it was at `as_of_ms` (None: at the latest event of the label's topic).

    Args:
        spec: the model.
        plan: the compiled features.
        lake: the lake or its folder.
        as_of_ms: event time, ms since the epoch.
        inputs: as an earlier set resolved them; None resolves them from the rows.
        extra: inputs of another version that is to be judged on the same rows.
        labelled: without labels (False), every row is kept and `y` is NaN.
        rows_at: keeps rows by their time, before anything is computed for them.
        memory_mb: DuckDB's limit, twice over (events and history).

    Raises:
        NotEnoughDataError: there is no row.
        LakeError: the lake cannot be read.
    """
    names = list(dict.fromkeys([*spec.features(), *_features(extra)]))
    with Stream(lake, as_of_ms, memory_mb=memory_mb) as stream:
        if as_of_ms is None:
            as_of_ms = stream.until_ms = stream.latest_ms(spec.label.topic)
        if as_of_ms is None:
            raise NotEnoughDataError(
                f"the lake has no event of {spec.label.topic}, which {spec.name} learns from"
            )
        rows = spec.rows(stream)
        time = rows[TIME_COLUMN].to_numpy()
        keep = time <= as_of_ms - (spec.label.known_after_ms if labelled else 0)
        keep &= rows_at(time) if rows_at is not None else True
        rows = rows.filter(pa.array(keep))
        if not len(rows):
            raise NotEnoughDataError(
                f"{spec.name}: no row's outcome is known yet; the label takes "
                f"{spec.label.known_after_ms / 86_400_000:.0f} days"
            )
        inputs = inputs or spec.resolve(rows)
        y = spec.labels(rows, stream) if labelled else np.full(len(rows), np.nan)
        versions = dict(stream.versions)
    if names:
        with History(plan, names, lake, until_ms=as_of_ms, memory_mb=memory_mb) as history:
            frame = history.of(rows)
            origin = json.loads(history.origin.to_json())
    else:
        frame, origin = rows, {"lake": lake_of(lake).url, "versions": {}, "positions": {}}
    origin["label_versions"] = versions
    time = frame[TIME_COLUMN].to_numpy()
    # Only what is declared is read: whatever else `rows` brought along never reaches a vector.
    x = assemble(inputs, {name: frame[name] for name in needed(inputs)}, time)
    return TrainingSet(spec, inputs, frame, x, y, time, as_of_ms, origin)


def split(data: TrainingSet) -> Parts:
    """Split the labelled rows by time, the newest last. Raises NotEnoughDataError for an empty part."""
    how, delay = data.spec.split, data.spec.label.known_after_ms
    known = ~np.isnan(data.y)
    newest = int(data.time[known].max()) if known.any() else 0
    holdout_start = newest - how.holdout_ms + 1
    tune_start = holdout_start - delay - how.tune_ms
    parts = Parts(
        fit=np.flatnonzero(known & (data.time + delay <= tune_start)),
        tune=np.flatnonzero(known & (data.time >= tune_start) & (data.time + delay <= holdout_start)),
        holdout=np.flatnonzero(known & (data.time >= holdout_start)),
    )
    for name in ("fit", "tune", "holdout"):
        if len(getattr(parts, name)) < 20:
            raise NotEnoughDataError(
                f"{data.spec.name}: {len(getattr(parts, name))} rows to {name}, of {int(known.sum())} whose "
                "outcome is known; the stream is too short for its split"
            )
    return parts


def _features(inputs: tuple[Input, ...]) -> list[str]:
    return [f"{each.view}.{each.feature}" for each in inputs if each.kind == "feature"]  # type: ignore[attr-defined]
