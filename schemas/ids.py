"""Ids decide identity: how an event without an id of its own gets one.

The rule, for any language: for each part, in order, take its UTF-8 text; write its length in bytes as an
unsigned 32-bit little-endian integer, then the bytes; hash the whole with XXH3-128 (seed 0); print it as 32
lower-case hexadecimal digits, most significant first. An integer's text is its decimal form; a missing part is
written as the length 0xFFFFFFFF and no bytes. The lengths keep ("ab", "c") and ("a", "bc") apart.
"""

from __future__ import annotations

from struct import Struct

from xxhash import xxh3_128_hexdigest

__all__ = ["derived_id", "event_id"]

_pack_length = Struct("<I").pack
_MISSING = b"\xff\xff\xff\xff"


def event_id(*natural_key: str | int | None) -> str:
    """Return the id of the event that `natural_key` identifies at its source: 32 hexadecimal digits.

    Raises TypeError for other types (a float or a time has no one text) and ValueError for an empty key.

    >>> event_id("orders", "31198570044", 0)
    '264d5a55df8911641a6ca3d44214302c'
    """
    if not natural_key:
        raise ValueError("event_id() needs at least one part of a natural key")
    pieces = []
    for part in natural_key:
        if part.__class__ is str:
            text = part.encode()
        elif part.__class__ is int:
            text = b"%d" % part
        elif part is None:
            pieces.append(_MISSING)
            continue
        else:
            raise TypeError(f"a part of a natural key is str, int or None, not {type(part).__name__}: {part!r}")
        pieces.append(_pack_length(len(text)))
        pieces.append(text)
    return xxh3_128_hexdigest(b"".join(pieces))


def derived_id(version: str, subject: str, time_bucket_ms: int, cause: str) -> str:
    """Return the id of an event derived from `cause` (an event_id) by a rule, model or encoder `version`.

    `subject` is what it is about, `time_bucket_ms` the event time floored to the rule's bucket (ms since the
    epoch). The same cause handled twice by the same version gives the same id, so a repeat is recognised.
    """
    return event_id("derived", version, subject, time_bucket_ms, cause)
