"""What values must be, from events in plain Python, with none of the project's feature code."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

HOUR, DAY = 3_600_000, 86_400_000
PLAN = json.loads(Path("features/plan.json").read_text())
VIEWS = {view["name"]: view for view in PLAN["views"]}


def bounds(now_ms: int, window_ms: int, hop_ms: int) -> tuple[int, int]:
    """A window ends with the hop that holds now, and begins on a whole minute, hour or day (or hop)."""
    end = now_ms - now_ms % hop_ms + hop_ms
    grain = 60_000 if window_ms < 12 * HOUR else HOUR if window_ms < 12 * DAY else DAY
    grain = max(grain, hop_ms)
    start = end - window_ms
    return start - start % grain, end


def answers(
    view_name: str, events: Iterable[Mapping[str, Any]], now_ms: int, *, arrival: bool = False
) -> dict[str, tuple[Any, str]]:
    """Value and status of every feature of one entity at a moment.

    `events` are its events in the order of the log; each has `event_time`, and `came` where `arrival` is asked.
    An id counts once, at its first place in the log.
    """
    view, once = VIEWS[view_name], {}
    for event in events:
        once.setdefault(event.get("event_id", id(event)), event)
    seen = [e for e in once.values() if e["event_time"] <= now_ms and (not arrival or e["came"] <= now_ms)]
    seen.sort(key=lambda event: event["event_time"])  # stable: ties stay in the order of the log
    found = {}
    for feature in view["features"]:
        start, _ = bounds(now_ms, feature["window_ms"], view["hop_ms"])
        values = [event.get(feature["column"]) for event in seen if event["event_time"] >= start]
        value = fold(feature["function"], values) if seen else None
        if not seen:
            status = "UNKNOWN"
        elif now_ms - seen[-1]["event_time"] > view["ttl_ms"]:
            status = "STALE"
        else:
            status = "PRESENT" if values else "EMPTY"
        found[feature["name"]] = (value, status)
    return found


def fold(function: str, values: list[Any]) -> Any:
    match function:
        case "count":
            return len(values)
        case "sum":
            return math.fsum(values)
        case "approx_count_distinct":
            return distinct(value for value in values if value is not None)
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    match function:
        case "mean":
            return mean
        case "std":
            return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "last":
            return values[-1]
    raise AssertionError(function)


def distinct(values: Iterable[str], bits: int = 10) -> int:
    """HyperLogLog with linear counting below 2.5 m, as published."""
    m = 1 << bits
    greatest = [0] * m
    for value in values:
        text = format(xxhash.xxh64_intdigest(value.encode()), "064b")
        bucket, rest = int(text[:bits], 2), text[bits:]
        zeros = len(rest) - len(rest.lstrip("0"))
        greatest[bucket] = max(greatest[bucket], zeros + 1)
    empty = greatest.count(0)
    raw = 0.7213 / (1 + 1.079 / m) * m * m / math.fsum(2.0**-rank for rank in greatest)
    return round(m * math.log(m / empty)) if raw <= 2.5 * m and empty else round(raw)


def same(function: str, got: Any, wanted: Any) -> bool:
    """Equal; sums to nine digits, a deviation to five places: it comes from a difference of squares."""
    if got is None or wanted is None:
        return got is None and wanted is None
    if function in ("count", "approx_count_distinct", "min", "max", "last"):
        return bool(got == wanted)
    return math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-5 if function == "std" else 1e-9)
