"""Features recomputed from produced events in plain Python, with none of the project's feature code."""

from collections.abc import Iterable, Mapping
from typing import Any

HOUR, DAY = 3_600_000, 86_400_000


def bounds(now_ms: int, window_ms: int, hop_ms: int) -> tuple[int, int]:
    """A window ends with the hop that holds now, and begins on a whole minute, hour or day."""
    end = now_ms - now_ms % hop_ms + hop_ms
    grain = 60_000 if window_ms < 12 * HOUR else HOUR if window_ms < 12 * DAY else DAY
    grain = max(grain, hop_ms)
    start = end - window_ms
    return start - start % grain, end


def order_features(
    events: Iterable[Mapping[str, Any]], dealer: str, now_ms: int, window_ms: int
) -> dict[str, Any]:
    """Count, sum, mean, min and max of one dealer's order lines; an id counts once."""
    start, end = bounds(now_ms, window_ms, 60_000)
    seen: dict[str, float] = {}
    for event in events:
        if event["dealer_id"] == dealer and start <= event["event_time"] < end:
            seen.setdefault(event["event_id"], event["amount"])
    amounts = list(seen.values())
    return {
        "count": len(amounts),
        "sum": sum(amounts),
        "mean": sum(amounts) / len(amounts) if amounts else None,
        "min": min(amounts, default=None),
        "max": max(amounts, default=None),
    }
