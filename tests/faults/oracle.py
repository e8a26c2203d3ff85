"""Features recomputed from produced events in plain Python, with none of the project's feature code."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

HOUR, DAY = 3_600_000, 86_400_000
Event = Mapping[str, Any]


def bounds(now_ms: int, window_ms: int, hop_ms: int) -> tuple[int, int]:
    """A window ends with the hop that holds now, and begins on a whole minute, hour or day."""
    end = now_ms - now_ms % hop_ms + hop_ms
    grain = 60_000 if window_ms < 12 * HOUR else HOUR if window_ms < 12 * DAY else DAY
    grain = max(grain, hop_ms)
    start = end - window_ms
    return start - start % grain, end


def once(events: Iterable[Event]) -> list[Event]:
    """The events without repeats, as they came first."""
    seen: dict[str, Event] = {}
    for event in events:
        seen.setdefault(event["event_id"], event)
    return list(seen.values())


def features(events: Iterable[Event], column: str, now_ms: int, window_ms: int, hop_ms: int) -> dict[str, Any]:
    """Every function over one column of one entity's events; of equal times the later one is `last`."""
    start, end = bounds(now_ms, window_ms, hop_ms)
    inside = [each for each in once(events) if start <= each["event_time"] < end]
    known = [
        (each["event_time"], order, each[column])
        for order, each in enumerate(inside)
        if each[column] is not None
    ]
    numbers = [value for _, _, value in known if isinstance(value, int | float)]
    mean = math.fsum(numbers) / len(numbers) if numbers else None
    return {
        "count": len(inside),
        "sum": math.fsum(numbers),
        "mean": mean,
        "std": None
        if mean is None
        else math.sqrt(math.fsum((each - mean) ** 2 for each in numbers) / len(numbers)),
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
        "last": max(known)[2] if known else None,
        "distinct": len({value for _, _, value in known}),
    }


def same(function: str, found: Any, wanted: Any) -> bool:
    """Whether a value is right: but for rounding, and a count of distinct ones to five errors of its sketch."""
    if found is None or wanted is None:
        return found is wanted
    if function == "distinct":
        return abs(found - wanted) <= max(2, 0.17 * wanted)
    return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-5 if function == "std" else 1e-6)
