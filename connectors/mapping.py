"""From a file's columns to a topic's fields: names, constants, casts, time zone; and what is wrong with a row.

Whole columns at a time; only rows that are refused are looked at one by one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import polars as pl

from connectors.files import BadRow, Chunk
from connectors.identity import NATURAL_KEYS, id_field, identify
from schemas.bounds import Bound, bounds
from schemas.catalogue import topic
from schemas.errors import DealerIQError
from schemas.validate import problems

__all__ = ["CASTS", "ColumnMapping", "Mapper", "MappingError"]

_INTEGERS = ("int", "long", "timestamp-millis")


class MappingError(DealerIQError):
    """The file's columns and the topic's fields do not meet. Nothing was produced."""

    remedy = "Say --map FIELD=COLUMN for a column, --set FIELD=VALUE for a constant; see it with --dry-run."
    exit_code = 2


def _decimal_comma(column: pl.Expr) -> pl.Expr:
    return column.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)


CASTS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "decimal-comma": _decimal_comma,
    "thousands": lambda column: column.str.replace_all(",", "", literal=True),
    "cents": lambda column: (column.cast(pl.Float64, strict=False) / 100).cast(pl.String),
    "abs": lambda column: column.str.strip_prefix("-"),
    "lower": lambda column: column.str.to_lowercase(),
    "upper": lambda column: column.str.to_uppercase(),
}


@dataclass(frozen=True)
class ColumnMapping:
    """`columns`: field -> column or `column:cast`; `constants`: field -> text; `timezone` of naive times."""

    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    timezone: str = "UTC"

    @classmethod
    def of(
        cls,
        maps: Iterable[str] = (),
        constants: Iterable[str] = (),
        timezone: str | None = None,
        file: Path | None = None,
    ) -> ColumnMapping:
        """Build from flags (`FIELD=COLUMN`) over a TOML file with `timezone`, `[columns]` and `[constants]`."""
        read: dict[str, Any] = {}
        if file is not None:
            try:
                read = tomllib.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise MappingError(f"the mapping {file} cannot be read: {error}") from error
            if extra := sorted(read.keys() - {"columns", "constants", "timezone"}):
                raise MappingError(
                    f"{file} has {', '.join(extra)}; allowed are columns, constants and timezone"
                )
        columns = {k: str(v) for k, v in read.get("columns", {}).items()} | _pairs("--map", maps)
        given = {k: str(v) for k, v in read.get("constants", {}).items()} | _pairs("--set", constants)
        zone = timezone or str(read.get("timezone", "UTC"))
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise MappingError(
                f"no time zone is called {zone!r}", remedy="Say one like Europe/Paris."
            ) from None
        return cls(columns, given, zone)

    @property
    def sources(self) -> list[str]:
        """The columns that it reads, casts left out."""
        return [_split(text)[0] for text in self.columns.values()]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the mapping: another mapping is another import."""
        plain = {"columns": self.columns, "constants": self.constants, "timezone": self.timezone}
        return sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).digest()


class Mapper:
    """Maps chunks of one file to one topic's records."""

    def __init__(self, topic_name: str, mapping: ColumnMapping) -> None:
        self.topic = topic_name
        self._mapping = mapping
        self._bounds = {bound.field: bound for bound in bounds(topic_name)}
        self._id = id_field(topic_name)
        for name in (*mapping.columns, *mapping.constants):
            if name not in self._bounds:
                raise MappingError(f"{name} is not a field of {topic_name}; it has {', '.join(self._bounds)}")

    @property
    def fields(self) -> tuple[str, ...]:
        """The topic's fields."""
        return tuple(self._bounds)

    @property
    def time_columns(self) -> tuple[str, ...]:
        """The columns from which times are read."""
        times = [name for name, bound in self._bounds.items() if bound.type == "timestamp-millis"]
        return tuple(_split(self._mapping.columns.get(name, name))[0] for name in times)

    def check_columns(self, names: list[str]) -> None:
        """Raise MappingError when a mapped column is absent or a required field has no column."""
        for target, text in self._mapping.columns.items():
            column, cast = _split(text)
            if column not in names:
                raise MappingError(
                    f"there is no column {column!r} (for {target}); there are {', '.join(names)}"
                )
            if cast is not None and cast not in CASTS:
                raise MappingError(f"{cast!r} is not a cast; there are {', '.join(CASTS)}")
        missing = [
            n for n, b in self._bounds.items() if b.required and n != self._id and not self._has(n, names)
        ]
        if self._id is not None and not self._has(self._id, names):
            missing += [n for n in NATURAL_KEYS[self.topic] if n not in missing and not self._has(n, names)]
        if missing:
            free = [name for name in names if name not in self._bounds]
            hints = []
            for name in missing:
                near = get_close_matches(name.lower(), [f.lower() for f in free], n=1, cutoff=0.5)
                found = next((f for f in free if near and f.lower() == near[0]), "COLUMN")
                hints.append(f"--map {name}={found}")
            raise MappingError(
                f"no column for {', '.join(missing)}; the file has {', '.join(names)}",
                remedy=f"Try {' '.join(hints)} (or --set FIELD=VALUE for a constant).",
            )

    def map(self, chunk: Chunk) -> tuple[pl.DataFrame, list[BadRow]]:
        """Return the records of the good rows, ids given, and every bad row with all its reasons."""
        raw = chunk.frame
        names = raw.columns
        fields = {n: self._column(b, raw) for n, b in self._bounds.items() if self._has(n, names)}
        if not raw.height:
            return pl.DataFrame(), sorted(chunk.bad, key=lambda bad: bad.line)
        source = pl.DataFrame({name: text for name, (text, _) in fields.items()})
        frame = pl.DataFrame({name: values for name, (_, values) in fields.items()})
        for name, bound in self._bounds.items():
            if name in frame.columns and not bound.nullable and not bound.required:
                frame = frame.with_columns(pl.col(name).fill_null(_default(self.topic, name)))
        if self._id is not None:
            ids = pl.Series(self._id, identify(self.topic, frame), dtype=pl.String)
            given = (
                frame[self._id] if self._id in frame.columns else pl.Series([None] * len(ids), dtype=pl.String)
            )
            frame = frame.with_columns(given.zip_with(given.is_not_null(), ids).alias(self._id))
        unread = {n: source[n].is_not_null() & values.is_null() for n, (_, values) in fields.items()}
        wrong = pl.Series([False] * raw.height)
        for series in unread.values():
            wrong = wrong | series
        wrong = wrong | frame.select(self._outside(frame)).to_series()
        bad = list(chunk.bad)
        for at in wrong.arg_true().to_list():
            reasons = [_unread(self._bounds[n], source[n][at]) for n, series in unread.items() if series[at]]
            named = {n for n, series in unread.items() if series[at]}
            row = frame.row(at, named=True)
            reasons += [p for p in problems(self.topic, row) if p.partition(" ")[0] not in named]
            bad.append(BadRow(chunk.lines[at], "; ".join(reasons), raw.row(at, named=True)))
        return frame.filter(~wrong), sorted(bad, key=lambda each: each.line)

    def keys(self, chunk: Chunk) -> list[str | None]:
        """Return the message key of each row: of one whose other columns are not there, as after a delete."""
        bound = self._bounds[topic(self.topic).key[0]]
        column = _split(self._mapping.columns.get(bound.field, bound.field))[0]
        if bound.field not in self._mapping.constants and column not in chunk.frame.columns:
            return [None] * chunk.frame.height
        return [None if key is None else str(key) for key in self._column(bound, chunk.frame)[1].to_list()]

    def _has(self, name: str, names: list[str]) -> bool:
        return name in self._mapping.columns or name in self._mapping.constants or name in names

    def _column(self, bound: Bound, raw: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
        """The field as in the file (null where empty), and as the topic's type (null where unreadable)."""
        name = bound.field
        if name in self._mapping.columns:
            column, cast = _split(self._mapping.columns[name])
            series = raw[column]
        elif name in self._mapping.constants:
            series, cast = pl.Series([self._mapping.constants[name]] * raw.height, dtype=pl.String), None
        else:
            series, cast = raw[name], None
        series = series.alias(name)
        if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
            return series, self._stamp(series)
        if bound.type == "string" and isinstance(series.dtype, pl.Categorical):
            series = series.cast(pl.String)
        text = series if series.dtype == pl.String else series.cast(pl.String, strict=False)
        column_of = pl.col(name)
        frame = text.to_frame().with_columns(
            pl.when(column_of.str.strip_chars() != "").then(column_of).alias(name)
        )
        text = frame[name]
        if cast is not None:
            frame = frame.with_columns(CASTS[cast](column_of).alias(name))
        return text, frame.select(self._typed(bound, column_of)).to_series()

    def _typed(self, bound: Bound, column: pl.Expr) -> pl.Expr:
        if bound.type == "string":
            return column
        plain = column.str.strip_chars()
        if bound.type == "timestamp-millis":
            return _time(plain, self._mapping.timezone)
        if bound.type == "boolean":
            low = plain.str.to_lowercase()
            yes, no = low.is_in(["true", "1", "yes"]), low.is_in(["false", "0", "no"])
            return pl.when(yes).then(True).when(no).then(False).otherwise(None)
        number = plain.cast(pl.Float64, strict=False)
        if bound.type in _INTEGERS:
            whole = number.cast(pl.Int64, strict=False)  # a spreadsheet writes 3 as 3.0
            return pl.coalesce(plain.cast(pl.Int64, strict=False), pl.when(number == whole).then(whole))
        return number

    def _stamp(self, series: pl.Series) -> pl.Series:
        zone = getattr(series.dtype, "time_zone", None)
        moment = pl.col(series.name).cast(pl.Datetime("ms", zone))
        if zone is None:
            moment = moment.dt.replace_time_zone(
                self._mapping.timezone, ambiguous="earliest", non_existent="null"
            )
        return series.to_frame().select(moment.dt.epoch("ms")).to_series()

    def _outside(self, frame: pl.DataFrame) -> pl.Expr:
        """True for a row that some bound refuses."""
        refused = pl.lit(False)
        for name, bound in self._bounds.items():
            if name not in frame.columns:
                continue
            column = pl.col(name)
            if not bound.nullable:
                refused = refused | column.is_null()
            if bound.minimum is not None:
                refused = refused | (column < bound.minimum).fill_null(False)
            if bound.maximum is not None:
                refused = refused | (column > bound.maximum).fill_null(False)
            if bound.type in ("double", "float"):
                refused = refused | (~column.is_finite()).fill_null(False)
            if bound.min_length:
                refused = refused | (column.str.len_chars() < bound.min_length).fill_null(False)
            if bound.max_length is not None:
                refused = refused | (column.str.len_chars() > bound.max_length).fill_null(False)
            if bound.pattern is not None:
                refused = refused | (~column.str.contains(f"^(?:{bound.pattern})$")).fill_null(False)
        return refused.alias("wrong") if frame.width else pl.lit(False)


def _time(column: pl.Expr, zone: str) -> pl.Expr:
    """Text to ms since the epoch: ISO 8601 (a blank for T, clock or seconds left out), or epoch s or ms."""
    number = column.cast(pl.Int64, strict=False)
    millis = pl.when(column.str.contains(r"^\d{12,13}$")).then(number)
    epoch = millis.when(column.str.contains(r"^\d{9,10}$")).then(number * 1000)
    iso = column.str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T").str.replace(
        r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00"
    )
    iso = iso.str.replace(r"T(\d\d:\d\d)($|Z|[+-])", "T${1}:00${2}").str.replace("[Zz]$", "+0000")
    iso = iso.str.replace(r"([+-]\d\d):(\d\d)$", "${1}${2}")
    aware = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="ms", time_zone="UTC", strict=False)
    naive = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="ms", strict=False)
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return pl.coalesce(epoch, aware.dt.epoch("ms"), local.dt.epoch("ms"))


def _pairs(flag: str, texts: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise MappingError(f"{flag} {text} is not FIELD={'COLUMN' if flag == '--map' else 'VALUE'}")
        pairs[name.strip()] = value
    return pairs


def _split(text: str) -> tuple[str, str | None]:
    column, sign, cast = text.rpartition(":")
    return (column, cast) if sign and cast in CASTS else (text, None)


def _default(topic_name: str, name: str) -> Any:
    schema = topic(topic_name).schema or {"fields": []}
    return next(each.get("default") for each in schema["fields"] if each["name"] == name)


def _unread(bound: Bound, value: Any) -> str:
    wanted = {"timestamp-millis": "a time (ISO 8601, or epoch s or ms)", "boolean": "true or false"}.get(
        bound.type, "a whole number" if bound.type in _INTEGERS else "a number"
    )
    shown = str(value)[:60]
    hint = ""
    if bound.type in ("double", "float") and "," in shown:
        hint = f" (a decimal comma: --map {bound.field}=COLUMN:decimal-comma, thousands: COLUMN:thousands)"
    return f"{bound.field} is {shown!r}, and must be {wanted}{hint}"
