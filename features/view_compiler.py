"""Compile one stream feature view to its plan and to the Avro schemas of its tile topic."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from features.plan import ColumnPlan, FeaturePlan, PlanError, ViewPlan
from schemas.catalogue import topic

__all__ = ["PARTIALS", "compile_view", "tile_schemas"]

PARTIALS = {
    "count": (),
    "sum": ("sum",),
    "mean": ("sum",),
    "std": ("sum", "sumsq"),
    "min": ("min",),
    "max": ("max",),
    "last": ("last",),
    "approx_count_distinct": ("distinct",),
}
"""The partials a tile must keep for each function; a count needs only the tile's `n`."""

_ORDER = ("sum", "sumsq", "min", "max", "last", "distinct")
_GRAINS = (60_000, 3_600_000, 86_400_000)
_NUMBERS = {"int", "long", "float", "double"}
_LATENESS = timedelta(days=1)


def compile_view(view: Any) -> ViewPlan:
    """Compile one StreamFeatureView. Raises PlanError."""
    from features.repo import entities

    source = view.stream_source
    types = _columns(view.name, source.name)
    keys = tuple(getattr(entities, name).join_key for name in view.entities)
    hop = _ms(view.tiling_hop_size)
    if any(hop % grain and grain % hop for grain in _GRAINS) or hop > _GRAINS[-1]:
        raise PlanError(f"{view.name}: a hop of {view.tiling_hop_size} does not divide a day evenly")
    grains = tuple(sorted({hop, *(grain for grain in _GRAINS if grain > hop)}))
    features = tuple(_feature(view.name, each, types) for each in view.aggregations)
    needed: dict[str, set[str]] = {}
    for each in features:
        needed.setdefault(each.column, set()).update(PARTIALS[each.function])
    draft = ViewPlan(
        name=view.name,
        source_topic=source.name,
        entity=keys,
        entity_types=tuple(types[key][0] for key in keys),
        timestamp=view.timestamp_field,
        hop_ms=hop,
        grains_ms=grains,
        retention_ms=(),
        lateness_ms=_ms(_LATENESS),
        ttl_ms=_ms(view.ttl),
        columns=tuple(
            ColumnPlan(column, tuple(p for p in _ORDER if p in partials))
            for column, partials in needed.items()
            if partials
        ),
        features=features,
    )
    return ViewPlan(**{**vars(draft), "retention_ms": _retention(draft)})


def _retention(view: ViewPlan) -> tuple[int, ...]:
    """For each grain the longest window whose tail it is, or one coarser tile for the head, plus one tile."""
    out = []
    for i, grain in enumerate(view.grains_ms):
        windows = [f.window_ms for f in view.features if view.tail_grain_ms(f.window_ms) == grain]
        head = view.grains_ms[i + 1] if i + 1 < len(view.grains_ms) else 0
        out.append(max([*windows, head]) + grain)
    return tuple(out)


def _feature(view: str, each: Any, types: dict[str, tuple[str, bool]]) -> FeaturePlan:
    if each.function not in PARTIALS:
        raise PlanError(f"{view}: no function is called {each.function!r}; there are {', '.join(PARTIALS)}")
    if each.column not in types:
        raise PlanError(f"{view}: its source has no column {each.column!r}; there are {', '.join(types)}")
    kind, nullable = types[each.column]
    if each.function not in ("count", "approx_count_distinct") and (kind not in _NUMBERS or nullable):
        raise PlanError(f"{view}: {each.function} needs a number that is never null; {each.column} is not one")
    window = _ms(each.time_window)
    stem = {"count": "count", "approx_count_distinct": f"{each.column}_distinct"}.get(
        each.function, f"{each.column}_{each.function}"
    )
    long = each.function in ("count", "approx_count_distinct")
    name = each.name or f"{stem}_{_window_name(window)}"
    return FeaturePlan(name, each.column, each.function, window, "long" if long else "double")


def _columns(view: str, name: str) -> dict[str, tuple[str, bool]]:
    schema = topic(name).schema
    if schema is None:
        raise PlanError(f"{view}: the topic {name} has no schema")
    out = {}
    for field in schema["fields"]:
        kind = field["type"]
        nullable = isinstance(kind, list)
        if nullable:
            kind = next(each for each in kind if each != "null")
        out[field["name"]] = (kind["type"] if isinstance(kind, dict) else kind, nullable)
    return out


def _window_name(ms: int) -> str:
    days, rest = divmod(ms, 86_400_000)
    return f"{days}d" if days > 1 and not rest else f"{ms // 3_600_000}h"


def _ms(value: timedelta) -> int:
    return round(value.total_seconds() * 1000)


def tile_schemas(view: ViewPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Avro schemas of a tile's key and value. Fields after `n` may be null: more can be added."""
    stem = "".join(part.capitalize() for part in view.name.split("_"))
    identity: list[dict[str, Any]] = [
        {"name": name, "type": kind, "doc": "Entity key."}
        for name, kind in zip(view.entity, view.entity_types, strict=True)
    ]
    identity += [
        {"name": "grain", "type": "int", "doc": "Length of the tile, s."},
        {"name": "hop", "type": "long", "doc": "Start of the tile, ms since the epoch, event time."},
    ]
    value = [*identity, {"name": "n", "type": "long", "doc": "Events in the tile."}]
    for column in view.columns:
        for partial in column.partials:
            name = f"{column.column}_{partial}"
            value.append(_nullable(name, "bytes" if partial == "distinct" else "double", _DOCS[partial]))
            if partial == "last":
                value.append(_nullable(f"{name}_time", "long", "Event time of the last value, ms."))
    value += [
        _nullable("max_event_time", "long", "Latest event time folded, ms."),
        _nullable("max_ingest_time", "long", "Latest Kafka record time folded, ms on the producer's clock."),
        _nullable(
            "positions",
            {"type": "array", "items": "long"},
            "Highest source offset folded by partition; -1 none.",
        ),
    ]
    record = {"type": "record", "namespace": "dealeriq"}
    return (
        record | {"name": f"{stem}TileKey", "doc": f"Key of a tile of {view.name}.", "fields": identity},
        record
        | {"name": f"{stem}Tile", "doc": f"Partial aggregates of {view.name}; complete.", "fields": value},
    )


_DOCS = {
    "sum": "Sum.",
    "sumsq": "Sum of squares.",
    "min": "Least value.",
    "max": "Greatest value.",
    "last": "Value with the latest event time.",
    "distinct": "Sorted little-endian uint32 coupons bucket<<6|rank of xxh64.",
}


def _nullable(name: str, kind: Any, doc: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}
