"""Fold events to tiles the plain way: what the streaming job must send, and what merged windows must say."""

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from features.merge import window
from features.plan import ViewPlan
from features.sketch import coupon, estimate
from features.tiles import Tile, from_record

Event = Mapping[str, Any]


def tiles_of(view: ViewPlan, events: Iterable[Event]) -> list[Tile]:
    """Every tile of every grain. Events carry `event_time` and the columns of the view."""
    tiles = []
    ordered = sorted(events, key=lambda event: event["event_time"])
    for grain in view.grains_ms:
        for index, group in groupby(ordered, lambda event, grain=grain: event["event_time"] // grain):
            tiles.append(from_record(view, _record(view, grain, index * grain, list(group))))
    return tiles


def _record(view: ViewPlan, grain: int, hop: int, some: list[Event]) -> dict[str, Any]:
    record: dict[str, Any] = {"grain": grain // 1000, "hop": hop, "n": len(some), "positions": [len(some)]}
    record["max_event_time"] = some[-1]["event_time"]
    for plan in view.columns:
        values = [event[plan.column] for event in some]
        for partial in plan.partials:
            name = f"{plan.column}_{partial}"
            if partial == "distinct":
                coupons = sorted({coupon(each) for each in values if each is not None})
                record[name] = np.array(coupons, "<u4").tobytes()
            elif partial == "last":
                record |= {name: values[-1], f"{name}_time": some[-1]["event_time"]}
            else:
                fold = {"sum": sum, "min": min, "max": max, "sumsq": lambda v: sum(x * x for x in v)}[partial]
                record[name] = fold(values)
    return record


def answers(view: ViewPlan, events: Iterable[Event], now_ms: int) -> list[float | int | None]:
    """The value of every feature, from the events alone."""
    ordered = sorted(events, key=lambda event: event["event_time"])
    return [_answer(view, feature, ordered, now_ms) for feature in view.features]


def _answer(view: ViewPlan, feature: Any, ordered: list[Event], now_ms: int) -> float | int | None:
    start, end = window(view, feature.window_ms, now_ms)
    v = [event.get(feature.column) for event in ordered if start <= event["event_time"] < end]
    match feature.function:
        case "count":
            return len(v)
        case "sum":
            return float(sum(v))
        case "approx_count_distinct":
            return estimate(np.array(sorted({coupon(each) for each in v if each is not None}), np.uint32))
    if not v:
        return None
    mean = sum(v) / len(v)
    match feature.function:
        case "mean":
            return mean
        case "std":
            return math.sqrt(sum((x - mean) ** 2 for x in v) / len(v))
        case "min":
            return float(min(v))
        case "max":
            return float(max(v))
        case "last":
            return float(v[-1])
    raise AssertionError(feature.function)
