"""What a model reads, declared as data, and the one function that makes a vector of it.

Training and serving call `assemble` with the same declarations: those of the spec when a model is trained,
those in its `model.json` when it is served. So a row has the same vector in both, to the bit. Needs numpy
alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DealerIQError

__all__ = [
    "CALENDAR",
    "Calendar",
    "Code",
    "Coefficient",
    "EventField",
    "Feature",
    "Holidays",
    "Input",
    "InputsError",
    "Log",
    "Ratio",
    "assemble",
    "event_column",
    "input_of",
    "needed",
]

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Columns = Mapping[str, Any]
_DAY_MS = 86_400_000


class InputsError(DealerIQError):
    """Values that a model needs are not among those given, or a declaration of inputs cannot be read."""

    remedy = "Compare the columns with the model's inputs: `dealeriq models ls NAME --json`."
    exit_code = 5


@dataclass(frozen=True)
class Input(ABC):
    """One number of a model's vector. `name` is unique in its model; `kind` is its word in model.json."""

    name: str
    kind: ClassVar[str]

    @abstractmethod
    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the number of each row, NaN where there is none. `before` holds the inputs in front of it."""

    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return ()

    def word(self, value: float | None) -> str | None:
        """Return the word that a value stands for, if it stands for one."""
        return None

    def shown(self, value: float | None) -> str:
        """Return a value of it for people; None is one that is not known."""
        if value is None:
            return "unknown"
        return self.word(value) or (f"{value:,.0f}" if 1_000 <= abs(value) < 1e15 else f"{value:,.4g}")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Feature(Input):
    """A feature of the compiled plan, as the online store and the history give it."""

    view: str
    feature: str
    kind: ClassVar[str] = "feature"

    def columns(self) -> tuple[str, ...]:
        """`view__feature`, as the history names it."""
        return (f"{self.view}__{self.feature}",)

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the values, NaN for null."""
        return _numbers(columns[self.columns()[0]])


@dataclass(frozen=True)
class EventField(Input):
    """A number of the event that is scored."""

    field: str
    kind: ClassVar[str] = "event"

    def columns(self) -> tuple[str, ...]:
        """`@field`: an `@` keeps the event's own fields apart from features."""
        return (event_column(self.field),)

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the field."""
        return _numbers(columns[event_column(self.field)])


@dataclass(frozen=True)
class Coefficient(EventField):
    """A coefficient of the model itself as it was when it answered: of a model that learns as it goes.

    It travels with the score, so that the answer can be repeated; it is no reason for it.
    """

    kind: ClassVar[str] = "coefficient"


@dataclass(frozen=True)
class Ratio(Input):
    """One input over another times `factor`; NaN where the lower one is 0 or missing."""

    upper: str
    lower: str
    factor: float = 1.0
    kind: ClassVar[str] = "ratio"

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the quotient."""
        lower = before[self.lower]
        out: Floats = before[self.upper] * self.factor / np.where(lower == 0, np.nan, lower)
        return out


@dataclass(frozen=True)
class Log(Input):
    """log(1 + scale · x) of another input, with the sign of x: sums of money over their many scales."""

    of: str
    scale: float = 1.0
    kind: ClassVar[str] = "log"

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the logarithm."""
        given = before[self.of]
        out: Floats = np.sign(given) * np.log1p(self.scale * np.abs(given))
        return out


CALENDAR = ("hour", "weekday", "day_of_month", "day_of_year")


@dataclass(frozen=True)
class Calendar(Input):
    """A part of the row's time, UTC: the hour (0 to 23), weekday (Monday is 0), day of month or year (from
    1).
    """

    part: str
    kind: ClassVar[str] = "calendar"

    def __post_init__(self) -> None:
        if self.part not in CALENDAR:
            raise InputsError(
                f"{self.name}: {self.part!r} is no part of a date; there are {', '.join(CALENDAR)}"
            )

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the part."""
        days = np.floor_divide(time_ms, _DAY_MS)
        if self.part == "hour":
            found = time_ms % _DAY_MS // 3_600_000
        elif self.part == "weekday":
            found = (days + 3) % 7  # the epoch was a Thursday
        else:
            unit = "M" if self.part == "day_of_month" else "Y"
            day = days.astype("datetime64[D]")
            found = (day - day.astype(f"datetime64[{unit}]").astype("datetime64[D]")).astype(np.int64) + 1
        return found.astype(np.float64)


@dataclass(frozen=True)
class Holidays(Input):
    """How many of `dates` (days since the epoch) lie within the next `days` days, the row's own day excluded.

    The dates travel with the model: whoever serves it needs no calendar of its own.
    """

    days: int
    dates: tuple[int, ...]
    kind: ClassVar[str] = "holidays"

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the count."""
        today, dates = np.floor_divide(time_ms, _DAY_MS), np.sort(np.asarray(self.dates, np.int64))
        upto = np.searchsorted(dates, today + self.days, "right")
        return (upto - np.searchsorted(dates, today, "right")).astype(np.float64)


@dataclass(frozen=True)
class Code(Input):
    """The place of a key's value in a list; NaN for one that is not in it (an unseen category)."""

    key: str
    values: tuple[str, ...]
    kind: ClassVar[str] = "code"

    def columns(self) -> tuple[str, ...]:
        """The key."""
        return (self.key,)

    def value(self, columns: Columns, time_ms: Longs, before: Mapping[str, Floats]) -> Floats:
        """Return the place."""
        place = {value: float(at) for at, value in enumerate(self.values)}
        given = columns[self.key]
        texts = given.to_pylist() if hasattr(given, "to_pylist") else given
        return np.fromiter(map(place.get, texts, repeat(np.nan)), np.float64, len(texts))

    def word(self, value: float | None) -> str | None:
        """Return what stands at the place; None between places, where a usual value may be."""
        if value is None or value not in range(len(self.values)):
            return None
        return self.values[int(value)]


_KINDS: dict[str, type[Input]] = {
    each.kind: each for each in (Feature, EventField, Coefficient, Ratio, Log, Calendar, Holidays, Code)
}


def event_column(field: str) -> str:
    """Return the column of a field of the event itself."""
    return f"@{field}"


def input_of(data: Mapping[str, Any]) -> Input:
    """Return the input that a dictionary of `Input.to_dict` tells. Raises InputsError."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    try:
        return _KINDS[given.pop("kind")](**given)
    except (KeyError, TypeError) as error:
        raise InputsError(f"an input is declared as {dict(data)!r}, which cannot be read: {error}") from error


def needed(inputs: Sequence[Input]) -> list[str]:
    """Return the columns that `assemble` wants, in order, each once."""
    return list(dict.fromkeys(name for each in inputs for name in each.columns()))


def assemble(inputs: Sequence[Input], columns: Columns, time_ms: Longs) -> NDArray[np.float32]:
    """Return float32 [rows, inputs] in the declared order, NaN for what is missing.

    What is infinite is missing, too: no model has learnt from it. `columns` may hold more than is needed; numpy
    and pyarrow columns will do. `time_ms` is each row's time, ms since the epoch. Raises InputsError.
    """
    if missing := [name for name in needed(inputs) if name not in columns]:
        raise InputsError(f"no column {', '.join(missing)} is given, which the model reads")
    before: dict[str, Floats] = {}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for each in inputs:
            before[each.name] = each.value(columns, time_ms, before)
        out = np.empty((len(time_ms), len(inputs)), np.float32)
        for at, each in enumerate(inputs):
            out[:, at] = before[each.name]
    out[~np.isfinite(out)] = np.nan
    return out


def _numbers(column: Any) -> Floats:
    """A column as float64: nulls of a pyarrow column and None of a list are NaN."""
    if hasattr(column, "to_numpy") and not isinstance(column, np.ndarray):
        column = column.to_numpy(zero_copy_only=False) if hasattr(column, "buffers") else column.to_numpy()
    return np.asarray(column, np.float64)
