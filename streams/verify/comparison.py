"""One view compared: its rows with the events of its source topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.plan import ViewPlan
from streams.verify.broker import Ends
from streams.verify.findings import Finding, Report
from streams.verify.online import Entity, OnlineRows
from streams.verify.tiles import TileCheck, compare_tiles, events_of
from streams.verify.values import compare_rows, compare_values

__all__ = ["Compared", "compare_view", "of_entities", "same_rows", "settle"]

_OF_TILES = frozenset({"extra-tile", "tile", "behind", "missing-tile"})
_WHOLE = frozenset({"extra-row", "missing-row", "unreadable-row"})  # say it once of a row, not of each tile


@dataclass
class Compared:
    """One view as it was compared: what repair works on."""

    view: ViewPlan
    events: pl.DataFrame
    online: OnlineRows
    check: TileCheck
    findings: list[Finding]
    doubtful: set[Entity]


def compare_view(
    report: Report,
    view: ViewPlan,
    events: pl.DataFrame,
    online: OnlineRows,
    *,
    chosen: Sequence[Entity] | None,
    common: Ends,
    since_ms: int,
    precision: int,
    pause: Callable[[], None],
) -> Compared:
    """Compare a view's rows with its events.

    Args:
        report: takes times and counts, and says at which moment features are compared.
        view: the view.
        events: every event of its source topic that counts.
        online: its rows, as they were read.
        chosen: of these entities alone; None for all.
        common: what must be stored, by partition.
        since_ms: event time before which the topic may have lost events; 0 for none.
        precision: of distinct counts.
        pause: called between batches.
    """
    if not len(events):
        findings = [
            Finding("extra-row", "online", view.name, row.entity, "tiles", "", None, "a row")
            for row in (online.rows if since_ms == 0 else ())
        ]
        return Compared(view, events, online, TileCheck(), findings, {row.entity for row in online.rows})
    count = int(events["_event"].max()) + 1  # type: ignore[arg-type]
    if chosen is not None:
        events = of_entities(view, events, chosen)
    with report.timed("tiles"):
        mine = events_of(view, events, online)
        check = compare_tiles(view, mine, online, common, count, since_ms)
        rows = list(compare_rows(view, mine, online, check.partly))
    with report.timed("values"):
        skip = check.moving | check.partly
        skip[[number for _, number in rows]] = True
        values, differing = compare_values(view, mine, online, report.at_ms, skip, precision, pause)
    report.values += values
    whole = {online.rows[number].entity for finding, number in rows if finding.kind in _WHOLE}
    findings = [f for f in check.findings if f.entity not in whole or f.kind not in _OF_TILES]
    findings += [finding for finding, _ in rows] + [finding for finding, _ in differing]
    doubtful = {f.entity for f in findings} | {
        online.rows[number].entity for number in np.flatnonzero(check.moving).tolist()
    }
    return Compared(view, mine, online, check, findings, doubtful)


def of_entities(view: ViewPlan, events: pl.DataFrame, entities: Sequence[Entity]) -> pl.DataFrame:
    """Return the events of some entities."""
    keys = list(view.entity)
    only = pl.DataFrame(list(entities), schema=dict.fromkeys(keys, pl.String), orient="row")
    return events.with_columns(pl.col(key).cast(pl.String) for key in keys).join(only, on=keys, how="semi")


def same_rows(first: OnlineRows, again: OnlineRows) -> bool:
    """Whether nothing of the rows that were read again has moved."""
    before = {row.entity: (row.value, row.version, row.stamp_ms) for row in first.rows}
    return all(before.get(row.entity) == (row.value, row.version, row.stamp_ms) for row in again.rows)


def settle(first: Compared, again: Compared) -> None:
    """Replace what was found of the rows that were read again; the rest of the comparison stands."""
    seen = first.doubtful
    first.findings = [each for each in first.findings if each.entity not in seen] + again.findings
    first.doubtful = again.doubtful
    first.check.applied |= again.check.applied[: len(first.check.applied)]
    again_moving = {again.online.rows[n].entity for n in np.flatnonzero(again.check.moving).tolist()}
    for number, row in enumerate(first.online.rows):
        if row.entity in seen:
            first.check.moving[number] = row.entity in again_moving
