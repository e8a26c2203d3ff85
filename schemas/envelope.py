"""The envelope of a message: CloudEvents 1.0 attributes in binary mode, and W3C trace context, as Kafka
headers.

`ce_specversion`, `ce_id`, `ce_type`, `ce_source`, `ce_time` (RFC 3339, ms, UTC), `ce_subject`, `traceparent`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os import urandom

__all__ = ["Envelope", "headers", "new_traceparent", "parse_headers"]

Headers = list[tuple[str, bytes]]

_SPECVERSION = ("ce_specversion", b"1.0")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_DAY_MS = 86_400_000
_days: dict[int, str] = {}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers of one message say; an attribute that is absent or unreadable is None.

    `time_ms` is event time, ms since the epoch. `unreadable` names headers that were present but malformed.
    """

    event_id: str | None
    type: str | None
    source: str | None
    time_ms: int | None
    subject: str | None
    traceparent: str | None
    unreadable: tuple[str, ...] = ()


def headers(
    event_id: str,
    type: str,  # noqa: A002  (CloudEvents' own word)
    source: str,
    time_ms: int,
    subject: str,
    traceparent: str | None = None,
) -> Headers:
    """Return the headers of a message. `type` is the topic's name; `time_ms` event time, ms since the epoch.

    Without a `traceparent` a new trace begins. Raises OverflowError for a time outside the years 1 to 9999.
    """
    return [
        _SPECVERSION,
        ("ce_id", event_id.encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", _rfc3339(time_ms)),
        ("ce_subject", subject.encode()),
        ("traceparent", (traceparent or new_traceparent()).encode()),
    ]


def parse_headers(raw: Iterable[tuple[str, bytes | str | None]] | None) -> Envelope:
    """Read the envelope; never raises: a foreign producer may send no headers or broken ones.

    Of a header that comes twice, the last counts, as Kafka's own `lastHeader` has it.
    """
    found = {name: value.encode() if isinstance(value, str) else value for name, value in raw or ()}
    unreadable = []

    def text(name: str) -> str | None:
        value = found.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            unreadable.append(name)
            return None

    time_ms = None
    if (written := text("ce_time")) is not None:
        try:
            when = datetime.fromisoformat(written)
            if when.tzinfo is None:
                raise ValueError("no offset")
            time_ms = (when - _EPOCH) // timedelta(milliseconds=1)
        except ValueError:
            unreadable.append("ce_time")
    traceparent = None
    if (trace := found.get("traceparent")) is not None:
        if _TRACEPARENT.fullmatch(trace):
            traceparent = trace.decode()
        else:
            unreadable.append("traceparent")
    event_id, kind, source, subject = (text(n) for n in ("ce_id", "ce_type", "ce_source", "ce_subject"))
    return Envelope(event_id, kind, source, time_ms, subject, traceparent, tuple(unreadable))


def new_traceparent(parent: str | None = None) -> str:
    """Return a W3C traceparent, sampled: a new trace, or a new span in the trace of `parent`."""
    trace = parent[3:35] if parent and _TRACEPARENT.fullmatch(parent.encode()) else urandom(16).hex()
    return f"00-{trace}-{urandom(8).hex()}-01"


def _rfc3339(time_ms: int) -> bytes:
    day, rest = divmod(time_ms, _DAY_MS)
    date = _days.get(day)
    if date is None:
        if len(_days) > 4096:
            _days.clear()
        date = _days[day] = (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%dT").rjust(11, "0")
    seconds, ms = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return b"%s%02d:%02d:%02d.%03dZ" % (date.encode(), hour, minute, second, ms)
