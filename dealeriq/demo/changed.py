"""Orders of some dealers of the carried year who change how they order: from one week on, every other week.

From the change on, a dealer's lines of every second week come a week later, on the same weekday: nothing is
ordered in one week and twice as much in the next. What is ordered in all stays as it was, so nobody would
see it in a month's figures; but a model that learnt that next week is like the last ones is wrong in every
week. Half of the dealers have their quiet weeks when the others have not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import polars as pl
from xxhash import xxh3_64_intdigest

from connectors.demo_data import YEAR_START_MS, Source, orders

__all__ = ["WEEK_MS", "days", "newest_of", "week_of", "weeks"]

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
_FEWEST, _MOST = 3_000, 12_000  # lines a year: dealers of the middle
_NAME = "demo/completejourney/changed"


def week_of(number: int) -> int:
    """Return when a week of the year begins, ms since the epoch; weeks count from 0."""
    return YEAR_START_MS + number * WEEK_MS


def weeks(dealers: int, change: int, last: int) -> list[Source]:
    """Return the orders of each week from 0 to before `last`; from week `change` on dealers have changed.

    `dealers` are those of middle size, by a hash of their ids; the same arguments give the same events.
    """
    table = _orders(dealers, week_of(last))
    number = (pl.col("event_time") - YEAR_START_MS) // WEEK_MS
    quiet = pl.col("dealer_id").replace_strict(
        {each: xxh3_64_intdigest(each.encode()) % 2 for each in table["dealer_id"].unique()},
        return_dtype=pl.Int64,
    )
    later = (number >= change) & (number % 2 == quiet)
    table = table.with_columns(event_time=pl.col("event_time") + pl.when(later).then(WEEK_MS).otherwise(0))
    table = table.sort("event_time", "event_id")
    times = table["event_time"].to_numpy()
    cuts = np.searchsorted(times, [week_of(each) for each in range(last + 1)])
    return [_source(table.slice(begin, end - begin)) for begin, end in pairwise(cuts)]


def days(week: Source) -> list[Source]:
    """Return the orders of each day of a week; a day without any is left out."""
    cuts = np.flatnonzero(np.diff(week.times // DAY_MS, prepend=-1, append=-1))
    return [
        Source(week.topic, week.name, week.times[begin:end], _part(week, int(begin)))
        for begin, end in pairwise(cuts.tolist())
    ]


def newest_of(source: Source) -> dict[str, int]:
    """Return when each dealer's category was last ordered, ms, by the subject's id of its scores."""
    lines = source.frame(0, len(source)).group_by("dealer_id", "category").agg(pl.col("event_time").max())
    return {f"{dealer}/{category}": at for dealer, category, at in lines.iter_rows()}


def _part(week: Source, begin: int) -> Callable[[int, int], pl.DataFrame]:
    return lambda start, stop: week.frame(begin + start, begin + stop)


def _orders(dealers: int, until_ms: int) -> pl.DataFrame:
    year = orders()
    until = int(np.searchsorted(year.times, until_ms))
    counts: dict[str, int] = {}
    frames = [year.frame(at, min(at + 100_000, until)) for at in range(0, until, 100_000)]
    for each in frames:
        for name, lines in each["dealer_id"].value_counts().iter_rows():
            counts[name] = counts.get(name, 0) + lines
    share = until / len(year)
    middle = [name for name, lines in counts.items() if _FEWEST * share <= lines <= _MOST * share]
    chosen = sorted(middle, key=lambda name: xxh3_64_intdigest(name.encode(), seed=3))[:dealers]
    return pl.concat([each.filter(pl.col("dealer_id").is_in(chosen)) for each in frames])


def _source(table: pl.DataFrame) -> Source:
    return Source(
        "orders", _NAME, table["event_time"].to_numpy(), lambda start, stop: table.slice(start, stop - start)
    )
