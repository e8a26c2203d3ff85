"""Scores out of the lake: which windows there are, and the rows of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.history import TIME_COLUMN
from features.history.accepted import text
from models.monitoring.sampling import once_a_window_sql
from models.training.events import Stream

__all__ = ["Pairs", "Scored", "Span", "read_pairs", "read_scored", "spans"]

_TOPIC = "scores"


@dataclass(frozen=True)
class Span:
    """Event times of a version's scores, ms: the newest, and the newest of those it began with."""

    newest_ms: int
    settled_ms: int | None


@dataclass(frozen=True)
class Scored:
    """Rows of one version: one of each subject and window, in the order of event time.

    `x` is float32 [rows, inputs] and `answers` [rows, outputs], as recorded; `rows` holds the entity's keys and
    `event_timestamp`, as training sets have them; `last` is the id of the newest score.
    """

    x: NDArray[np.float32]
    answers: NDArray[np.float32]
    dealer: NDArray[np.int64]
    time: NDArray[np.int64]
    rows: pa.Table
    last: str

    def __len__(self) -> int:
        return len(self.time)

    @property
    def dealers(self) -> int:
        """How many dealers the rows are of."""
        return len(np.unique(self.dealer))

    def take(self, at: NDArray[Any]) -> Scored:
        """Return some rows."""
        rows = self.rows.filter(pa.array(at)) if at.dtype == bool else self.rows.take(pa.array(at))
        return Scored(self.x[at], self.answers[at], self.dealer[at], self.time[at], rows, self.last)


@dataclass(frozen=True)
class Pairs:
    """The same subjects at the same moments, scored by champion (`scored`) and challenger (`other`)."""

    scored: Scored
    other: NDArray[np.float32]


def spans(stream: Stream, model: str, since_ms: int, settle_ms: int) -> dict[str, Span]:
    """Return the span of each version's scores from `since_ms` on.

    A version begins by scoring every entity as it is, at times of its own: those are the scores that were
    produced within `settle_ms` (wall clock) of its first.
    """
    found = stream.query(
        _TOPIC,
        ["model_version"],
        "WITH began AS (SELECT model_version, min(_timestamp) AS began FROM once GROUP BY 1) "
        "SELECT model_version, max(event_time) AS newest, "
        f"max(event_time) FILTER (WHERE _timestamp < began + {int(settle_ms)}) AS settled "
        "FROM once JOIN began USING (model_version) GROUP BY 1",
        where=f"model = {text(model)} AND event_time >= {int(since_ms)}",
    )
    return {row["model_version"]: Span(row["newest"], row["settled"]) for row in found.to_pylist()}


def read_scored(
    stream: Stream,
    model: str,
    version: str,
    begin_ms: int,
    end_ms: int,
    window_ms: int,
    *,
    entity: Sequence[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Scored:
    """Return one score of each subject and window in [begin, end). Raises LakeError."""
    found = stream.query(
        _TOPIC,
        ["subject_id", "features", "outputs", "entity"],
        f"SELECT * FROM (SELECT * FROM once {once_a_window_sql('subject_id', window_ms)}) "
        "ORDER BY event_time, subject_id",
        where=f"model = {text(model)} AND model_version = {text(version)} "
        f"AND event_time >= {int(begin_ms)} AND event_time < {int(end_ms)}{_even(stream)}",
    )
    return _scored(found, entity, inputs, outputs)


def read_pairs(
    stream: Stream,
    model: str,
    champion: str,
    challenger: str,
    decided_at: int,
    window_ms: int,
    *,
    begin_ms: int,
    entity: Sequence[str],
    outputs: Sequence[str],
) -> Pairs:
    """Return what both versions scored since the decision at `decided_at` made one the challenger: one score of
    each subject and window. Raises LakeError.
    """
    found = stream.query(
        _TOPIC,
        ["subject_id", "outputs", "entity", "model_version", "decided_at"],
        "WITH a AS (SELECT * FROM once WHERE model_version = " + text(champion) + "), "
        "b AS (SELECT subject_id, event_time, outputs AS other FROM once "
        f"WHERE model_version = {text(challenger)} AND decided_at = {int(decided_at)}), "
        "paired AS (SELECT a.*, b.other FROM a JOIN b USING (subject_id, event_time)) "
        f"SELECT * FROM (SELECT * FROM paired {once_a_window_sql('subject_id', window_ms)}) "
        "ORDER BY event_time, subject_id",
        where=f"model = {text(model)} AND event_time >= {int(begin_ms)} "
        f"AND model_version IN ({text(champion)}, {text(challenger)}){_even(stream)}",
    )
    other = _matrix(found["other"], outputs) if len(found) else np.empty((0, len(outputs)), np.float32)
    return Pairs(_scored(found, entity, (), outputs), other)


def _even(stream: Stream) -> str:
    """A condition that leaves out what is kept only because it is beyond a threshold: the rest is an even
    sample.
    """
    return " AND coalesce(sampled, true)" if stream.has(_TOPIC, "sampled") else ""


def _scored(found: pa.Table, entity: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> Scored:
    if not len(found):
        nothing: NDArray[np.int64] = np.empty(0, np.int64)
        empty = {key: pa.array([], pa.string()) for key in entity}
        return Scored(
            np.empty((0, len(inputs)), np.float32), np.empty((0, len(outputs)), np.float32), nothing, nothing,
            pa.table({**empty, TIME_COLUMN: pa.array([], pa.int64())}), "",
        )  # fmt: skip
    keys = found["entity"].to_pylist()
    rows = {key: pa.array([dict(each)[key] for each in keys], pa.string()) for key in entity}
    dealer = found["dealer_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return Scored(
        _matrix(found["features"], inputs) if inputs else np.empty((len(found), 0), np.float32),
        _matrix(found["outputs"], outputs),
        dealer.astype(np.int64),
        found["event_time"].to_numpy(),
        pa.table({**rows, TIME_COLUMN: found["event_time"]}),
        found["event_id"][-1].as_py(),
    )


def _matrix(column: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """The values of a map column by name, NaN where there is none."""
    maps = column.combine_chunks()
    offsets = maps.offsets.to_numpy()
    keys, items = (each.slice(offsets[0], offsets[-1] - offsets[0]) for each in (maps.keys, maps.items))
    row = np.repeat(np.arange(len(maps)), np.diff(offsets))
    place = pc.index_in(keys, value_set=pa.array(list(names), pa.string())).fill_null(-1).to_numpy()
    values = items.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    out = np.full((len(maps), len(names)), np.nan, np.float32)
    known = place >= 0
    out[row[known], place[known]] = values[known]
    return out
