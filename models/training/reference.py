"""The reference of a version: rows of the holdout as the stream would have scored them, with their outcomes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.lake import Root
from features.history import TIME_COLUMN, History
from features.history.accepted import quoted
from features.plan import Plan
from models.inputs import EventField, assemble, needed
from models.monitoring.reference import WEEK_MS, Reference
from models.monitoring.sampling import once_a_window_sql
from models.runtime import Session
from models.spec import ModelSpec
from models.training.events import Stream

__all__ = ["draw_reference"]

_DEALER = "dealer_id"
_ROWS = 8_000


def draw_reference(
    spec: ModelSpec,
    plan: Plan,
    lake: Root,
    session: Session,
    *,
    from_ms: int,
    as_of_ms: int,
    seed: int = 0,
    rows: int = _ROWS,
    memory_mb: int = 768,
) -> Reference | None:
    """Return what `session` says of events from `from_ms` on whose outcome was known at `as_of_ms`.

    None for a model that the stream does not score (of single events, of no dealer), and where there is no
    event. At most `rows`, drawn with `seed`. Raises LakeError.
    """
    if _DEALER not in spec.entity or any(isinstance(each, EventField) for each in spec.inputs):
        return None
    told = session.description
    views = [plan.views[name] for name in told.views]
    topics = {view.source_topic for view in views if set(view.entity) == set(spec.entity)}
    until_ms = as_of_ms - spec.label.known_after_ms
    with Stream(lake, as_of_ms, memory_mb=memory_mb) as stream:
        found = [_events(stream, topic, spec, from_ms, until_ms) for topic in sorted(topics)]
        frame = pa.concat_tables(found) if found else None
        if frame is None or not len(frame):
            return None
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.permutation(len(frame))[:rows])
        frame = frame.take(pa.array(kept))
        y = spec.labels(frame, stream)
    with History(plan, told.features, lake, until_ms=as_of_ms, memory_mb=memory_mb) as history:
        values = history.of(frame)
    time = frame[TIME_COLUMN].to_numpy()
    x = assemble(told.inputs, {name: values[name] for name in needed(told.inputs)}, time)
    return Reference(x, session.run(x), y, *_blocks(frame, time))


def _events(stream: Stream, topic: str, spec: ModelSpec, from_ms: int, until_ms: int) -> pa.Table:
    keys = ", ".join(map(quoted, spec.entity))
    subject = f"concat_ws('/', {keys})"
    return stream.query(
        topic,
        spec.entity,
        f"SELECT {', '.join(f'CAST({quoted(key)} AS VARCHAR) AS {quoted(key)}' for key in spec.entity)}, "
        f"CAST(event_time AS BIGINT) AS {TIME_COLUMN} FROM once {once_a_window_sql(subject, WEEK_MS)} "
        f"ORDER BY {keys}, event_time",
        where=f"event_time BETWEEN {from_ms} AND {until_ms}",
    )


def _blocks(frame: pa.Table, time: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's block (dealer and week) and week."""
    week = time // WEEK_MS
    dealer = frame[_DEALER].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    pairs = dealer * (int(week.max()) + 1) + week
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64), week
