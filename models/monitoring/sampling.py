"""One score of each subject in each window: how live scores and the reference are made alike.

A busy subject is scored more often than a quiet one, and a row of training is drawn once a week. So of each
subject and window one row counts: the first at or after a moment of the window that is the subject's own (a
hash), else the first of the window. The moments are spread evenly, so that no weekday is preferred.
"""

from __future__ import annotations

__all__ = ["once_a_window_sql"]


def once_a_window_sql(subject: str, window_ms: int) -> str:
    """Return the QUALIFY clause that keeps one row of each subject (an SQL expression) and window."""
    phase = f"CAST(md5_number_lower({subject}) % {window_ms} AS BIGINT)"
    return (
        f"QUALIFY row_number() OVER (PARTITION BY {subject}, event_time // {window_ms} "
        f"ORDER BY (event_time % {window_ms} - {phase} + {window_ms}) % {window_ms}, _partition, _offset) = 1"
    )
