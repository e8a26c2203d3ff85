"""Whom and when: the rows that values are asked for, checked before anything is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.plan import ViewPlan
from schemas.bounds import TIME_MAXIMUM_MS, TIME_MINIMUM_MS
from schemas.errors import DealerIQError

__all__ = ["TIME_COLUMN", "EntityRowsError", "Rows", "read_rows"]

TIME_COLUMN = "event_timestamp"
"""The column of times, as in Feast's entity frames."""

_ABOUT = (
    f"Give a column for each entity key and `{TIME_COLUMN}`: a time with its zone (2017-06-01T12:00:00Z), or "
    "ms since the epoch."
)


class EntityRowsError(DealerIQError):
    """The rows of whom and when cannot be used; nothing was computed."""

    remedy = _ABOUT
    exit_code = 6


@dataclass(frozen=True)
class Rows:
    """Times in ms since the epoch, and each entity key as text; `frame` is what came, untouched."""

    frame: pa.Table
    time: NDArray[np.int64]
    keys: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.time)

    def entities(self, names: Sequence[str]) -> tuple[pa.Table, NDArray[np.int64]]:
        """Return the different entities with a number (`_entity`) each, and the number of each row's."""
        codes = np.zeros(len(self), np.int64)
        for name in names:
            encoded = self.keys[name].dictionary_encode()
            codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
        _, first, number = np.unique(codes, return_index=True, return_inverse=True)
        columns = {name: self.keys[name].take(pa.array(first)) for name in names}
        return pa.table({**columns, "_entity": np.arange(len(first))}), number.astype(np.int64)


def read_rows(
    frame: pa.Table,
    views: Iterable[ViewPlan],
    taken: Iterable[str] = (),
    *,
    clock: Callable[[], float] = time.time,
) -> Rows:
    """Check a frame and read its keys and times.

    Keys are text; whole numbers are read as their digits. `taken` are the columns that values will have.
    Rows are counted from 1 in messages. Raises EntityRowsError.
    """
    views = list(views)
    wanted = list(dict.fromkeys(key for view in views for key in view.entity))
    missing = [name for name in [*wanted, TIME_COLUMN] if name not in frame.column_names]
    if missing:
        raise EntityRowsError(
            f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing; there are "
            f"{_listed(frame.column_names) or 'no columns'}, and "
            f"{_listed([view.name for view in views])} need {_listed([*wanted, TIME_COLUMN])}"
        )
    twice = sorted({name for name in frame.column_names if frame.column_names.count(name) > 1})
    clash = [name for name in frame.column_names if name in set(taken)]
    if twice or clash:
        problem = f"{_listed(twice)} comes twice" if twice else f"{_listed(clash)} would be overwritten"
        raise EntityRowsError(problem, remedy="Rename the column.")
    keys = {name: _keys(name, frame[name].combine_chunks()) for name in wanted}
    return Rows(frame, _times(frame[TIME_COLUMN].combine_chunks(), clock), keys)


def _keys(name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        if column.null_count == len(column):
            column = column.cast(pa.string())
        else:
            raise EntityRowsError(f"{name} is of type {column.type}, and must be text or whole numbers")
    if column.null_count:
        raise EntityRowsError(f"row {1 + _first(column.is_null()):,} has no {name}")
    return column


def _times(column: pa.Array, clock: Callable[[], float]) -> NDArray[np.int64]:
    if column.null_count:
        raise EntityRowsError(f"row {1 + _first(column.is_null()):,} has no {TIME_COLUMN}")
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise EntityRowsError(f"{TIME_COLUMN} has no time zone")
        out = pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms", kind.tz)).cast(pa.int64())
        found = out.to_numpy()
    elif pa.types.is_integer(kind):
        found = column.cast(pa.int64()).to_numpy()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = np.array([_parse(text, 1 + i) for i, text in enumerate(column.to_pylist())], np.int64)
    else:
        raise EntityRowsError(f"{TIME_COLUMN} is of type {kind}, and must be a time with its zone")
    now = int(clock() * 1000)
    for problem, wrong in (
        ("in the future", found > now),
        ("outside 2000 to 2100", (found < TIME_MINIMUM_MS) | (found > TIME_MAXIMUM_MS)),
    ):
        if count := int(wrong.sum()):
            at = int(np.argmax(wrong))
            raise EntityRowsError(
                f"{count:,} row{' lies' if count == 1 else 's lie'} {problem}: row {1 + at:,} has "
                f"{TIME_COLUMN} {_shown(int(found[at]))}",
                remedy="Values at a moment are known when it has passed." if found[at] > now else _ABOUT,
            )
    return found  # type: ignore[no-any-return]


def _parse(text: str, row: int) -> int:
    text = text.strip()
    if text.lstrip("-").isdigit() and len(text) > 8:  # eight digits and less are a date or a year
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise EntityRowsError(f"row {row:,}: {TIME_COLUMN} {text!r} is not a time") from None
    if moment.tzinfo is None:
        raise EntityRowsError(f"row {row:,}: {TIME_COLUMN} {text!r} has no time zone")
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1000 + moment.microsecond // 1000


def _shown(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return str(ms)


def _first(mask: pa.Array) -> int:
    return int(np.argmax(mask.to_numpy(zero_copy_only=False)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
