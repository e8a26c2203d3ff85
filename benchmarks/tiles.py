"""Tiles of the carried year's dealer orders, folded in one go: what reads and writes are measured on."""

from __future__ import annotations

from collections import defaultdict

import polars as pl

from connectors import demo_data
from features.plan import ViewPlan
from features.sketch import coupon
from features.tiles import Tile, tile_reader

__all__ = ["NOW_MS", "dealer_tiles"]

NOW_MS = demo_data.YEAR_END_MS - 10 * 3_600_000
"""The afternoon of the last day: the moment to which windows reach."""


def dealer_tiles(view: ViewPlan, dealers: int | None = None) -> dict[tuple[str, ...], list[Tile]]:
    """Return every tile that the store would keep at NOW_MS, by dealer; of the busiest ones where bounded."""
    orders = demo_data.orders()
    first, end = orders.times.searchsorted([NOW_MS - view.retention_ms[-1], NOW_MS])
    lines = orders.frame(int(first), int(end))
    if dealers is not None:
        busiest = lines.group_by("dealer_id").len().sort("len", "dealer_id", descending=True)["dealer_id"]
        lines = lines.filter(pl.col("dealer_id").is_in(busiest.head(dealers).implode()))
    distinct = [each.column for each in view.columns if "distinct" in each.partials]
    lines = lines.with_columns(_coupons(lines[column]) for column in distinct)
    columns = {each.column: each.partials for each in view.columns}
    found: defaultdict[tuple[str, ...], list[Tile]] = defaultdict(list)
    read = tile_reader(view)
    for grain, keep in zip(view.grains_ms, view.retention_ms, strict=True):
        hop = pl.col("event_time") // grain * grain
        folded = (
            lines.filter(hop > NOW_MS - keep - grain)
            .group_by("dealer_id", hop.alias("hop"), maintain_order=True)
            .agg(
                pl.len().alias("n"),
                pl.max("event_time").alias("max_event_time"),
                *[_partial(column, partial) for column, partials in columns.items() for partial in partials],
                *[
                    pl.last("event_time").cast(pl.Float64).alias(f"{column}_last_time")
                    for column, partials in columns.items()
                    if "last" in partials
                ],
            )
        )
        for record in folded.iter_rows(named=True):
            for column in distinct:
                record[f"{column}_distinct"] = b"".join(
                    each.to_bytes(4, "little") for each in record[f"{column}_distinct"]
                )
            record |= {"grain": grain // 1000, "positions": [record["n"]]}
            found[(record["dealer_id"],)].append(read(record))
    return dict(found)


def _coupons(values: pl.Series) -> pl.Series:
    known = {value: coupon(value) for value in values.unique()}
    return values.replace_strict(known, return_dtype=pl.UInt32)


def _partial(column: str, partial: str) -> pl.Expr:
    value, name = pl.col(column), f"{column}_{partial}"
    match partial:
        case "sumsq":
            return (value * value).sum().alias(name)
        case "distinct":
            return value.unique().sort().alias(name)
        case "sum" | "min" | "max" | "last":
            folded: pl.Expr = getattr(value, partial)()
            return folded.alias(name)
    raise ValueError(f"a tile has no partial {partial}")
