"""Insight rules the plain way: what the insight job must tell, from all readings of one rule and subject.

Written from the words of `models.rules.InsightRule` and of docs/insights.md, over the whole list at once: it
shares nothing with the job, which sees one reading at a time and keeps a few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """One reading: the score's id, its event time, and the value that the rule looks at."""

    score: str
    time: int
    value: float | None
    threshold: float = 10.0
    hysteresis: float = 2.0
    cool_down: int = 100
    above: bool = True


def insights(readings: list[Said]) -> list[str]:
    """Return the scores that become insights, in order. `readings` are in the order of the log."""
    counted: list[Said] = []
    for each in readings:
        newest = counted[-1] if counted else None
        if newest is not None and (
            each.time < newest.time or (each.time == newest.time and each.score == newest.score)
        ):
            continue  # older than what was seen, or the same again
        counted.append(each)
    episodes: list[list[Said]] = []
    is_open = False
    for each in counted:
        if each.value is None:
            continue
        sign = 1 if each.above else -1
        over = sign * (each.value - each.threshold)
        if over > 0:
            if not is_open:
                episodes.append([])
                is_open = True
            episodes[-1].append(each)
        elif sign * (each.value - (each.threshold - sign * each.hysteresis)) <= 0:
            is_open = False
    told: list[Said] = []
    for episode in episodes:
        first = next((s for s in episode if not told or s.time - told[-1].time >= s.cool_down), None)
        if first is not None:
            told.append(first)
    return [each.score for each in told]
