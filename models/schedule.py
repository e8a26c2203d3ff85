"""Trainings by the calendar: how long after the last one the next is due."""

from __future__ import annotations

__all__ = ["due"]

_DAY_MS = 86_400_000
_DAYS = {"weekly": 7, "biweekly": 14, "monthly": 30}


def due(schedule: str, last_ms: int, now_ms: int) -> bool:
    """Return whether a model that was trained, or asked for, at `last_ms` is due; `never` is never.

    Wall clock, ms since the epoch. A month is 30 days.
    """
    return schedule in _DAYS and now_ms - last_ms >= _DAYS[schedule] * _DAY_MS
