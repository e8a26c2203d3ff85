"""How events change the graph: a pure fold of a batch over what the graph holds of its subjects.

Of several records of one product or dealer the newest event time counts, ties go to the later one; a tombstone
forgets what was there, whatever its time. Of inventory the newest level of a dealer's product counts, alike.
An order line counts once: the graph holds every line under its event id, so a repeat is known however late it
comes. As in the tiles, an id is a dealer's own: another dealer may use the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Batch", "Changes", "Known", "Line", "fold", "path_of"]

Record = Mapping[str, Any]
Row = list[Any]

PRODUCT_FIELDS = (
    "name", "category", "subcategory", "product_type", "brand", "manufacturer_id", "package_size", "price",
    "deleted", "event_time",
)  # fmt: skip
DEALER_FIELDS = ("name", "region", "event_time")


class Line(NamedTuple):
    """An order line and where it stands in its topic."""

    record: Record
    partition: int
    offset: int


@dataclass(slots=True)
class Batch:
    """What messages say, in the order of each partition; None is a tombstone."""

    products: list[tuple[str, Record | None]] = field(default_factory=list)
    dealers: list[tuple[str, Record | None]] = field(default_factory=list)
    levels: list[Record] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Known:
    """What the graph holds of a batch's subjects: event times in ms, and lines by (dealer, event id)."""

    products: dict[str, int] = field(default_factory=dict)
    dealers: dict[str, int] = field(default_factory=dict)
    levels: dict[tuple[str, str], int] = field(default_factory=dict)
    lines: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class Changes:
    """Rows for the graph's statements; `named_*` are the ends of relations, which may be new."""

    products: list[dict[str, Any]] = field(default_factory=list)
    dealers: list[dict[str, Any]] = field(default_factory=list)
    gone_products: list[str] = field(default_factory=list)
    gone_dealers: list[str] = field(default_factory=list)
    levels: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)
    lines: list[Row] = field(default_factory=list)
    ordered: list[Row] = field(default_factory=list)
    named_products: list[str] = field(default_factory=list)
    named_dealers: list[str] = field(default_factory=list)
    duplicates: int = 0
    superseded: int = 0


def fold(batch: Batch, known: Known) -> Changes:
    """Return what a batch changes."""
    changes = Changes()
    for identity, record in _newest(batch.products, known.products, changes).items():
        changes.products.append(_product(identity, record))
        if record is None:
            changes.gone_products.append(identity)
    for identity, record in _newest(batch.dealers, known.dealers, changes).items():
        changes.dealers.append(_dealer(identity, record))
        if record is None:
            changes.gone_dealers.append(identity)
    _fold_levels(batch.levels, known.levels, changes)
    _fold_lines(batch.lines, known.lines, changes)
    ends = [*changes.levels, *changes.ordered]
    changes.named_dealers = list(dict.fromkeys(row[0] for row in ends))
    changes.named_products = list(dict.fromkeys(row[1] for row in ends))
    return changes


def path_of(record: Record) -> tuple[str, ...]:
    """Return a product's classes: its department, and the category within it where it has one."""
    finer = record["subcategory"]
    return (record["category"],) if finer is None else (record["category"], finer)


def _newest(
    events: Sequence[tuple[str, Record | None]], times: Mapping[str, int], changes: Changes
) -> dict[str, Record | None]:
    """The last state of everything that changed."""
    now: dict[str, int | None] = dict(times)
    found: dict[str, Record | None] = {}
    for identity, record in events:
        before = now.get(identity)
        if record is not None and before is not None and record["event_time"] < before:
            changes.superseded += 1
            continue
        now[identity] = None if record is None else record["event_time"]
        found[identity] = record
    return found


def _product(identity: str, record: Record | None) -> dict[str, Any]:
    path = () if record is None else path_of(record)
    return {
        "id": identity,
        "fields": _fields(PRODUCT_FIELDS, record),
        "path": " > ".join(path) or None,
        "leaf": path[-1] if path else None,
        "above": [" > ".join(path[:-1])] if len(path) > 1 else [],
    }


def _dealer(identity: str, record: Record | None) -> dict[str, Any]:
    region = None if record is None else record["region"]
    return {"id": identity, "fields": _fields(DEALER_FIELDS, record), "region": region}


def _fields(names: Sequence[str], record: Record | None) -> dict[str, Any]:
    """Every field by name; None, which a property cannot be, takes it away."""
    return dict.fromkeys(names) if record is None else {name: record[name] for name in names}


def _fold_levels(levels: Sequence[Record], times: Mapping[tuple[str, str], int], changes: Changes) -> None:
    rows: dict[tuple[str, str], Row] = {}
    for record in levels:
        pair = record["dealer_id"], record["product_id"]
        before = rows[pair][3] if pair in rows else times.get(pair)
        if before is not None and record["event_time"] < before:
            changes.superseded += 1
            continue
        rows[pair] = [*pair, record["on_hand"], record["event_time"]]
    changes.levels = list(rows.values())


def _fold_lines(lines: Sequence[Line], held: set[tuple[str, str]], changes: Changes) -> None:
    seen = set(held)
    orders: dict[tuple[str, str], Row] = {}
    ordered: dict[tuple[str, str], Row] = {}
    for record, partition, offset in lines:
        dealer, product, at = record["dealer_id"], record["product_id"], record["event_time"]
        if (dealer, record["event_id"]) in seen:
            changes.duplicates += 1
            continue
        seen.add((dealer, record["event_id"]))
        changes.lines.append(
            [dealer, record["order_id"], product, record["event_id"], record["quantity"], at, partition, offset]
        )
        order = orders.setdefault((dealer, record["order_id"]), [dealer, record["order_id"], at])
        order[2] = max(order[2], at)
        sums = ordered.setdefault((dealer, product), [dealer, product, 0, 0, at])
        sums[2] += 1
        sums[3] += record["quantity"]
        sums[4] = max(sums[4], at)
    changes.orders, changes.ordered = list(orders.values()), list(ordered.values())
