"""Verify the online features: what the store gives at a moment against the same windows over the events.

The expected values are computed from events, with one group-by a window. They share with the feature code only
the definition: which column, which function, where a window begins and ends; no tile, blob or merge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from connectors.registry import Registry
from connectors.settings import KafkaSettings
from features.keys import entity_key, unwrap_bytes
from features.keys import field as hash_field
from features.merge import merge, window
from features.plan import Plan, ViewPlan
from schemas.catalogue import topic as declared
from streams.verify.log import TopicEvents, read_events

__all__ = ["Difference", "FeatureReport", "verify_features"]

_RELATIVE, _ABSOLUTE = 1e-9, 1e-6
_PIPELINE = 500


@dataclass(frozen=True)
class Difference:
    """One feature of one entity that is not what the log says."""

    view: str
    entity: tuple[str, ...]
    feature: str
    online: float | int | None
    expected: float | int | None


@dataclass
class FeatureReport:
    """What was compared at `at_ms`, and what differs."""

    at_ms: int
    entities: int = 0
    values: int = 0
    topics: dict[str, dict[str, int]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def verify_features(
    kafka: KafkaSettings,
    registry: Registry,
    store: Any,
    plan: Plan,
    *,
    at_ms: int | None = None,
    sample: int | None = 500,
    progress: Callable[[str], None] = lambda line: None,
) -> FeatureReport:
    """Compare every feature of all entities, or of `sample` entities a view, at event time `at_ms`.

    `store` is a `redis.Redis` whose answers are bytes; `at_ms` None is the latest event in the topics.
    The topics should be at rest: what arrives meanwhile is reported as a difference.
    """
    logs: dict[str, TopicEvents] = {}
    for name in dict.fromkeys(view.source_topic for view in plan.views.values()):
        views = [view for view in plan.views.values() if view.source_topic == name]
        columns = [*(e for v in views for e in v.entity), *(f.column for v in views for f in v.features)]
        progress(f"reading {name}")
        logs[name] = read_events(kafka, registry, name, columns, declared(name).key[0])
    latest = [int(log.frame["event_time"].max()) for log in logs.values() if len(log.frame)]  # type: ignore[arg-type]
    report = FeatureReport(at_ms if at_ms is not None else max(latest, default=0))
    report.topics = {
        name: {
            "records": log.records, "events": len(log.frame),
            "duplicates": log.duplicates, "rejected": log.rejected,
        }
        for name, log in logs.items()
    }  # fmt: skip
    for view in plan.views.values():
        progress(f"comparing {view.name}")
        _compare(view, logs[view.source_topic].frame, store, plan, report, sample)
    return report


def _compare(
    view: ViewPlan, events: pl.DataFrame, store: Any, plan: Plan, report: FeatureReport, sample: int | None
) -> None:
    if not len(events):
        return
    keys = list(view.entity)
    entities = events.select(keys).unique().sort(keys)
    if sample is not None and len(entities) > sample:
        entities = entities.sample(sample, seed=report.at_ms % 2**31)
        events = events.join(entities, on=keys, how="semi")
    expected = _expected(view, events, report.at_ms)
    rows = entities.rows()
    for start in range(0, len(rows), _PIPELINE):
        part = rows[start : start + _PIPELINE]
        pipe = store.pipeline(transaction=False)
        for entity in part:
            key = entity_key(view, dict(zip(keys, map(str, entity), strict=True)), plan.project)
            pipe.hget(key, hash_field(view.name, "tiles"))
        for entity, blob in zip(part, pipe.execute(), strict=True):
            row = merge(view, unwrap_bytes(blob) if blob else None, report.at_ms, plan.distinct_precision)
            report.entities += 1
            for feature, online in zip(view.features, row.values, strict=True):
                report.values += 1
                empty = 0 if feature.function in ("count", "sum", "approx_count_distinct") else None
                wanted = expected[feature.name].get(entity, empty)
                if not _equal(feature.function, online, wanted, plan.distinct_precision):
                    report.differences.append(Difference(view.name, entity, feature.name, online, wanted))


def _expected(
    view: ViewPlan, events: pl.DataFrame, at_ms: int
) -> dict[str, dict[tuple[Any, ...], float | int | None]]:
    keys, found = list(view.entity), {}
    for width in sorted({feature.window_ms for feature in view.features}):
        start, end = window(view, width, at_ms)
        inside = events.filter(pl.col("event_time").is_between(start, end, closed="left"))
        features = [feature for feature in view.features if feature.window_ms == width]
        grouped = inside.group_by(keys).agg(_aggregate(f.column, f.function).alias(f.name) for f in features)
        entities = list(zip(*(grouped[key].to_list() for key in keys), strict=True))
        for feature in features:
            found[feature.name] = dict(zip(entities, grouped[feature.name].to_list(), strict=True))
    return found


def _aggregate(column: str, function: str) -> pl.Expr:
    values = pl.col(column)
    match function:
        case "count":
            return pl.len()
        case "sum":
            return values.sum()
        case "mean":
            return values.mean()
        case "std":
            return values.std(ddof=0)
        case "min":
            return values.min()
        case "max":
            return values.max()
        case "last":
            return values.sort_by(["event_time", "_order"]).last()
        case "approx_count_distinct":
            return values.drop_nulls().n_unique()
    raise ValueError(f"verify knows no function {function!r}")


def _equal(function: str, online: float | int | None, wanted: float | int | None, precision: int) -> bool:
    if online is None or wanted is None:
        return online is wanted
    if function == "approx_count_distinct":
        # Five standard errors of the sketch, and never less than two: a sketch is right or wrong by far.
        return abs(online - wanted) <= max(2.0, 5 * 1.04 / math.sqrt(2**precision) * wanted)
    # A standard deviation comes from a difference of squares: half the digits are lost where it is small.
    loose = 1e-5 if function == "std" else _ABSOLUTE
    return math.isclose(online, wanted, rel_tol=_RELATIVE, abs_tol=loose)
