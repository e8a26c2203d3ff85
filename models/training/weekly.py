"""Rows of entities that order: each once a week, on a weekday of its own, as long as it is active."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.history import TIME_COLUMN
from models.spec import DAY_MS, TrainingSet
from models.training.events import Stream

__all__ = ["active_weeks", "silence"]

_WEEK = 7 * DAY_MS
Longs = NDArray[np.int64]


def active_weeks(stream: Stream, keys: Sequence[str], active_ms: int) -> pa.Table:
    """Return the entities with `event_timestamp` and `age_ms`, the time since the day of their first order.

    An entity is active while its last whole day with an order is at most `active_ms` ago: a row may know no
    more than that. Its weekday is a hash of its keys, which nothing that comes later moves.
    """
    days = stream.summed("orders", keys, [])
    number = _numbers(days, keys)
    time = days["event_time"].to_numpy()
    first = np.full(number.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, number, time)
    end = (stream.until_ms or int(time.max())) + DAY_MS
    one = np.searchsorted(number, np.arange(len(first)))
    named = {key: days[key].take(pa.array(one)) for key in keys}
    names = zip(*(column.to_pylist() for column in named.values()), strict=True)
    phase = np.array([xxh3_64_intdigest(" ".join(name).encode()) % 7 for name in names]) * DAY_MS
    weeks = np.arange(int(time.min()) // _WEEK * _WEEK, end + 1, _WEEK)
    entity = np.repeat(np.arange(len(first)), len(weeks))
    at = np.tile(weeks, len(first)) + phase[entity]
    place = np.searchsorted(number * (end + 2) + time, entity * (end + 2) + np.minimum(at, end))
    last = time[np.maximum(place - 1, 0)] + DAY_MS
    active = (first[entity] < at) & (at - last <= active_ms)
    found = {key: column.take(pa.array(entity[active])) for key, column in named.items()}
    return pa.table({**found, TIME_COLUMN: at[active], "age_ms": (at - first[entity])[active]})


def silence(data: TrainingSet) -> Longs:
    """Return 0 where something came in the last day, 1 in the last week, 2 in the last month, 3 longer ago."""
    level = np.full(len(data), 3)
    for step, window in ((2, "30d"), (1, "7d"), (0, "24h")):
        level[np.nan_to_num(data.column(f"count_{window}")) > 0] = step
    return level


def _numbers(days: pa.Table, keys: Sequence[str]) -> Longs:
    """Number the entities of rows that are sorted by them."""
    changed = np.zeros(len(days), np.bool_)
    for key in keys:
        codes = days[key].combine_chunks().dictionary_encode().indices.to_numpy()
        changed[1:] |= codes[1:] != codes[:-1]
    return np.cumsum(changed).astype(np.int64)
