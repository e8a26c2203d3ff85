"""Ids of a batch of derived events: `schemas.ids.derived_id` of each row, to the digit, for a fraction.

What a batch's rows have in common is laid out once: most of them have times of as many digits and causes of one
length. It needs numpy, which `schemas.ids` does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_hexdigest

__all__ = ["derived_ids"]

_pack_length = Struct("<I").pack
_GROUP = 10_000
_DIGITS = np.frombuffer(b"".join(b"%04d" % number for number in range(_GROUP)), np.uint32)
"""Each number of four digits, as it is written."""
_MOST = 16  # digits of four groups


class _Lengths(dict[int, bytes]):
    def __missing__(self, length: int) -> bytes:
        found = self[length] = _pack_length(length)
        return found


_lengths = _Lengths()


def derived_ids(
    version: str, subjects: Iterable[str], times_ms: NDArray[np.int64], causes: Iterable[str]
) -> list[str]:
    """Return `derived_id(version, subject, time, cause)` of each row. Raises ValueError for columns that differ
    in length.
    """
    subject, cause = list(map(str.encode, subjects)), list(map(str.encode, causes))
    begin = b"".join(_pack_length(len(each)) + each for each in (b"derived", version.encode()))
    heads = {length: begin + _lengths[length] for length in set(map(len, subject))}
    alike = len(set(map(len, cause))) == 1
    times = _decimals(times_ms, _lengths[len(cause[0])] if alike else b"")
    sizes = [] if alike else [map(_lengths.__getitem__, map(len, cause))]
    front = map(heads.__getitem__, map(len, subject))
    rows = map(b"".join, zip(front, subject, times, *sizes, cause, strict=True))
    return list(map(xxh3_128_hexdigest, rows))


def _decimals(numbers: NDArray[np.int64], after: bytes) -> list[bytes]:
    """Return of each number the length of its decimal text, the text, and `after`."""
    if not len(numbers):
        return []
    low, high = int(numbers.min()), int(numbers.max())
    width = len(str(high))
    if low < 0 or len(str(low)) != width or width > _MOST:
        texts = map(b"%d".__mod__, numbers.tolist())
        return [b"".join((_lengths[len(each)], each, after)) for each in texts]
    groups, rest = np.empty((len(numbers), 4), np.uint32), numbers
    for at in (3, 2, 1):
        rest, four = np.divmod(rest, _GROUP)
        groups[:, at] = _DIGITS[four]
    groups[:, 0] = _DIGITS[rest]
    blank = _lengths[width] + bytes(width) + after
    table = np.empty((len(numbers), len(blank)), np.uint8)
    table[:] = np.frombuffer(blank, np.uint8)
    table[:, 4 : 4 + width] = groups.view(np.uint8)[:, _MOST - width :]
    found: list[bytes] = table.view(f"V{len(blank)}").ravel().tolist()
    return found
