"""Stored tiles against the events: each holds exactly the events up to its own positions, and none is missing.

Expected partials come from one plain group-by a grain over the events. They share with the feature code only
the plan: which column, which partial, how long a tile is and how long it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from features.plan import ViewPlan
from streams.verify.findings import Finding, tile_name
from streams.verify.online import OnlineRows

__all__ = ["TileCheck", "compare_tiles", "events_of", "partials", "with_coupons"]

_RELATIVE, _ABSOLUTE = 1e-9, 1e-6
_EXACT = ("_min", "_max", "_last", "_last_time")
Mask = NDArray[np.bool_]


@dataclass
class TileCheck:
    """What was found in one view's tiles.

    `applied` tells of each event (by `_event`) whether a stored tile holds it, `kept` whether retention keeps
    any tile of it. `moving` rows have tiles of one entity that reach different positions: records are on
    their way. Of `partly` rows the topic has let events go.
    """

    findings: list[Finding] = field(default_factory=list)
    wrong_rows: set[int] = field(default_factory=set)
    applied: Mask = field(default_factory=lambda: np.zeros(0, bool))
    kept: Mask = field(default_factory=lambda: np.zeros(0, bool))
    moving: Mask = field(default_factory=lambda: np.zeros(0, bool))
    partly: Mask = field(default_factory=lambda: np.zeros(0, bool))


def with_coupons(events: pl.DataFrame, columns: set[str], precision: int) -> pl.DataFrame:
    """Add a HyperLogLog coupon (bucket << 6 | rank of xxh64) of each column of which distinct values are
    counted.
    """
    for column in sorted(columns):
        values = events[column].drop_nulls().unique()
        coupons = [_coupon(str(value), precision) for value in values]
        known = pl.DataFrame({column: values, f"_coupon_{column}": pl.Series(coupons, dtype=pl.Int64)})
        events = events.join(known, on=column, how="left", maintain_order="left")
    return events


def _coupon(value: str, precision: int) -> int:
    bits = f"{xxhash.xxh64_intdigest(value.encode()):064b}"
    bucket, rest = bits[:precision], bits[precision:]
    return int(bucket, 2) << 6 | (len(rest) - len(rest.lstrip("0")) + 1)


def events_of(view: ViewPlan, events: pl.DataFrame, online: OnlineRows) -> pl.DataFrame:
    """Return the events that count, each once and of a known entity, with `_row` and `_stamp` where there is a
    row.
    """
    keys = list(view.entity)
    mine = events.with_columns(pl.col(key).cast(pl.String) for key in keys).drop_nulls(keys)
    return mine.join(online.frame(), on=keys, how="left", maintain_order="left")


def compare_tiles(
    view: ViewPlan,
    events: pl.DataFrame,
    online: OnlineRows,
    common: Mapping[int, int],
    count: int,
    since_ms: int = 0,
) -> TileCheck:
    """Compare every tile of a view.

    `events` are `events_of` the view, out of `count` (above every `_event`). `common` is the next offset by
    source partition up to which all must be stored. Tiles before `since_ms` may hold events that the topic
    has let go, and are passed over.
    """
    partitions = online.positions.shape[1]
    upto = np.array([common.get(partition, 0) for partition in range(partitions)], np.int64)
    check = TileCheck(
        applied=np.zeros(count, bool),
        kept=np.zeros(count, bool),
        moving=np.zeros(len(online.rows), bool),
        partly=np.zeros(len(online.rows), bool),
    )
    check.findings += _missing_rows(view, events, upto)
    reach = online.reach()
    first = _once(online)
    stored = _tile_frame(view, online, first, check)
    passed = online.hop < since_ms
    check.partly[online.row[passed]] = True
    known = events.filter(pl.col("_row").is_not_null())
    for number, grain in enumerate(view.grains_ms):
        oldest = pl.col("_stamp") - view.retention_ms[number] - grain
        hop = pl.col("event_time") // grain * grain
        kept = (hop > oldest) & (hop >= since_ms)
        placed = known.with_columns(_hop=hop, _kept=kept, _needed=kept & _sent(view, number)).join(
            stored.filter(pl.col("_grain") == grain).drop("_grain"), on=["_row", "_hop"], how="left",
            maintain_order="left",
        )  # fmt: skip
        tile = placed["_tile"].fill_null(-1).to_numpy()
        partition, offset = placed["_partition"].to_numpy(), placed["_offset"].to_numpy()
        needed = placed["_needed"].to_numpy()
        held = (tile >= 0) & (offset <= online.positions[tile, partition]) if len(online.n) else tile >= 0
        lacking = needed & ~held & (offset < upto[partition])
        row = placed["_row"].to_numpy()
        check.moving[row[needed & ~held & (offset <= reach[row, partition])]] = True
        for finding, of in _lacking(view, online, placed.filter(lacking), grain):
            check.findings.append(finding)
            check.wrong_rows.add(of)
        mine = (online.grain_s * 1000 == grain) & first & ~passed
        placed_here = held & (placed["_hop"].to_numpy() >= since_ms)
        for finding, of in _differing(view, online, placed.filter(placed_here), np.flatnonzero(mine)):
            check.findings.append(finding)
            check.wrong_rows.add(of)
        at = placed["_event"].to_numpy()
        check.applied[at] |= held
        check.kept[at] |= placed["_kept"].to_numpy()
    return check


def _sent(view: ViewPlan, number: int) -> pl.Expr:
    """Tell the tiles that must have been sent.

    A coarse tile may wait while the row's newest event lies in it, if all of its parts are still kept then:
    readers take the parts for it. One that is there all the same must be right, not complete.
    """
    grain = view.grains_ms[number]
    if number == 0 or view.retention_ms[number - 1] + view.grains_ms[number - 1] < grain:
        return pl.lit(True)
    return pl.col("event_time") // grain < pl.col("_stamp") // grain


def _once(online: OnlineRows) -> Mask:
    """Tell the tiles apart from those that stand in their row a second time."""
    places = pl.DataFrame({"row": online.row, "grain": online.grain_s, "hop": online.hop})
    return places.select(pl.struct(pl.all()).is_first_distinct().alias("first"))["first"].to_numpy()


def _missing_rows(view: ViewPlan, events: pl.DataFrame, upto: NDArray[np.int64]) -> Iterator[Finding]:
    lost = events.filter(pl.col("_row").is_null())
    lost = lost.filter(pl.Series(lost["_offset"].to_numpy() < upto[lost["_partition"].to_numpy()]))
    keys = list(view.entity)
    for group in (
        lost.group_by(keys).agg(n=pl.len(), last=pl.col("_offset").max(), p=pl.col("_partition").first()).rows()
    ):
        entity, (n, last, partition) = group[: len(keys)], group[len(keys) :]
        yield Finding(
            "missing-row", "online", view.name, entity, "tiles", "", f"{n} events", None,
            f"{view.source_topic}[{partition}]@{last}",
        )  # fmt: skip


def _tile_frame(view: ViewPlan, online: OnlineRows, first: Mask, check: TileCheck) -> pl.DataFrame:
    """Return the place of every stored tile; name those that should not be there at all."""
    kept = dict(zip(view.grains_ms, view.retention_ms, strict=True))
    stamps = online.stamps()
    grain = online.grain_s * 1000
    keep = np.array([kept.get(each, -1) for each in view.grains_ms])
    retention = np.zeros(len(grain), np.int64)
    known_grain = np.zeros(len(grain), bool)
    for each, length in zip(view.grains_ms, keep, strict=True):
        retention[grain == each] = length
        known_grain |= grain == each
    old = online.hop <= stamps[online.row] - retention - grain if len(grain) else np.zeros(0, bool)
    for bad, why in (
        (~first, "one"),
        (first & ~known_grain, "no such grain"),
        (first & known_grain & old, "out of retention"),
    ):
        for index in np.flatnonzero(bad):
            found = "two" if why == "one" else f"{online.n[index]} events"
            check.findings.append(_finding(view, online, int(index), "extra-tile", "n", why, found))
            check.wrong_rows.add(int(online.row[index]))
    frame = pl.DataFrame(
        {"_row": online.row, "_grain": grain, "_hop": online.hop, "_tile": np.arange(len(grain))}
    )
    return frame.filter(pl.Series(first))


def _lacking(
    view: ViewPlan, online: OnlineRows, lost: pl.DataFrame, grain: int
) -> Iterator[tuple[Finding, int]]:
    """Events at or before the common position that no tile holds."""
    grouped = lost.group_by("_row", "_hop", "_tile").agg(
        n=pl.len(), last=pl.col("_offset").max(), partition=pl.col("_partition").sort_by("_offset").last()
    )
    for row, hop, tile, n, last, partition in grouped.rows():
        at = f"{view.source_topic}[{partition}]@{last}"
        name = tile_name(grain // 1000, hop)
        entity = online.rows[row].entity
        if tile is None:
            yield Finding("missing-tile", "online", view.name, entity, "n", name, n, None, at), row
        else:
            found = _positions(view, online.positions[tile])
            yield Finding("behind", "online", view.name, entity, "positions", name, at, found, at), row


def _differing(
    view: ViewPlan, online: OnlineRows, held: pl.DataFrame, tiles: NDArray[np.int64]
) -> Iterator[tuple[Finding, int]]:
    """Tiles (by number) that are not what the events up to their positions give."""
    slot = np.full(len(online.n) + 1, -1, np.int64)
    slot[tiles] = np.arange(len(tiles))
    held = held.sort("event_time", "_partition", "_offset")
    grouped = held.group_by("_tile").agg(
        n=pl.len(), max_event_time=pl.col("event_time").max(), **partials(view)
    )
    at = slot[grouped["_tile"].to_numpy()]

    def expected(name: str, missing: Any, dtype: Any) -> Any:
        out = np.full(len(tiles), missing, dtype)
        values = grouped[name].cast(pl.Float64) if dtype is np.float64 else grouped[name]
        out[at] = values.fill_null(missing).to_numpy()
        return out

    n = expected("n", 0, np.int64)
    empty = n == 0
    for index in np.flatnonzero(empty):
        yield (
            _finding(view, online, int(tiles[index]), "extra-tile", "n", 0, int(online.n[tiles[index]])),
            int(online.row[tiles[index]]),
        )
    columns: list[tuple[str, Any, Any, Any]] = []
    for name, times in (("n", online.n), ("max_event_time", online.max_event_time)):
        wanted, got = expected(name, 0, np.int64), times[tiles]
        columns.append((name, wanted, got, wanted != got))
    for name, doubles in online.doubles.items():
        want, held_double = expected(name, np.nan, np.float64), doubles[tiles]
        loose = (0.0, 0.0) if name.endswith(_EXACT) else (_RELATIVE, _ABSOLUTE)
        same = np.isclose(held_double, want, *loose, equal_nan=True)
        columns.append((name, want, held_double, ~same))
    for name, wanted, got, differ in columns:
        for index in np.flatnonzero(differ & ~empty):
            tile = int(tiles[index])
            yield (
                _finding(view, online, tile, "tile", name, wanted[index].item(), got[index].item()),
                int(online.row[tile]),
            )
    for tile, name, wanted, got in [
        *_reaching(online, held, tiles, slot),
        *_sketches(online, held, tiles, slot),
    ]:
        if not empty[slot[tile]]:
            yield _finding(view, online, tile, "tile", name, wanted, got), int(online.row[tile])


def partials(view: ViewPlan) -> dict[str, pl.Expr]:
    """Return the expression of each partial, over events in the order of time and position."""
    found: dict[str, pl.Expr] = {}
    for column in view.columns:
        for partial in column.partials:
            if partial == "distinct":
                continue
            values = pl.col(column.column).cast(pl.Float64)
            some = values.count() > 0
            name = f"{column.column}_{partial}"
            match partial:
                case "sum":
                    found[name] = pl.when(some).then(values.sum())
                case "sumsq":
                    found[name] = pl.when(some).then((values * values).sum())
                case "min":
                    found[name] = values.min()
                case "max":
                    found[name] = values.max()
                case "last":  # the events come in order of time, then of position
                    found[name] = values.drop_nulls().last()
                    found[f"{name}_time"] = pl.col("event_time").filter(values.is_not_null()).last()
                case _:
                    raise ValueError(f"verify knows no partial {partial!r}")
    return found


def _reaching(
    online: OnlineRows, held: pl.DataFrame, tiles: NDArray[np.int64], slot: NDArray[np.int64]
) -> Iterator[tuple[int, str, Any, Any]]:
    """Positions that no event of the tile has."""
    wanted = np.full((len(tiles), online.positions.shape[1]), -1, np.int64)
    last = held.group_by("_tile", "_partition").agg(pl.col("_offset").max())
    wanted[slot[last["_tile"].to_numpy()], last["_partition"].to_numpy()] = last["_offset"].to_numpy()
    for index in np.flatnonzero((wanted != online.positions[tiles]).any(1)):
        tile = int(tiles[index])
        yield tile, "positions", wanted[index].tolist(), online.positions[tile].tolist()


def _sketches(
    online: OnlineRows, held: pl.DataFrame, tiles: NDArray[np.int64], slot: NDArray[np.int64]
) -> Iterator[tuple[int, str, Any, Any]]:
    for name, (owner, coupons) in online.sketches.items():
        column = f"_coupon_{name.removesuffix('_distinct')}"
        best = (
            held.filter(pl.col(column).is_not_null())
            .group_by("_tile", pl.col(column) // 64)
            .agg(coupon=pl.col(column).max())
            .sort("_tile", "coupon")
        )
        mine = slot[owner] >= 0
        got_of, got = owner[mine], coupons[mine]
        want_of, want = best["_tile"].to_numpy(), best["coupon"].to_numpy()
        if np.array_equal(got_of, want_of) and np.array_equal(got, want):
            continue
        ours, theirs = _lists(want_of, want), _lists(got_of, got)
        for tile in tiles.tolist():
            if ours.get(tile, []) != theirs.get(tile, []):
                yield tile, name, f"{len(ours.get(tile, []))} coupons", f"{len(theirs.get(tile, []))} coupons"


def _lists(owner: NDArray[np.int64], values: NDArray[np.int64]) -> dict[int, list[int]]:
    cuts = np.flatnonzero(np.diff(owner)) + 1
    return {
        int(of[0]): part.tolist()
        for of, part in zip(np.split(owner, cuts), np.split(values, cuts), strict=True)
        if len(of)
    }


def _positions(view: ViewPlan, positions: NDArray[np.int64]) -> str:
    reached = [f"[{p}]@{offset}" for p, offset in enumerate(positions.tolist()) if offset >= 0]
    return view.source_topic + " ".join(reached)


def _finding(
    view: ViewPlan, online: OnlineRows, tile: int, kind: Any, feature: str, expected: Any, found: Any
) -> Finding:
    return Finding(
        kind, "online", view.name, online.rows[int(online.row[tile])].entity, feature,
        tile_name(int(online.grain_s[tile]), int(online.hop[tile])), expected, found,
        _positions(view, online.positions[tile]),
    )  # fmt: skip
