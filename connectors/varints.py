"""Avro's integers, many at once: zigzag, then seven bits a byte, the lowest first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut", "varint", "varints"]


def varint(value: int) -> bytes:
    """Return one integer as Avro writes an int or a long."""
    rest = value << 1 ^ value >> 63
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def varints(values: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return where the bytes of each integer begin, and where the last ones end; and all bytes, in a row."""
    signed = values.astype(np.int64)
    zigzag = ((signed << 1) ^ (signed >> 63)).view(np.uint64)
    if len(zigzag) and (width := _width(zigzag.max())) == _width(zigzag.min()):
        groups = zigzag[:, None] >> np.arange(0, 7 * width, 7, dtype=np.uint64) & np.uint64(0x7F)
        groups[:, :-1] |= np.uint64(0x80)
        return np.arange(len(zigzag) + 1, dtype=np.int64) * width, groups.astype(np.uint8).ravel()
    lengths = np.ones(len(zigzag), dtype=np.int64)
    rest = zigzag >> np.uint64(7)
    while rest.any():
        lengths += rest != 0
        rest = rest >> np.uint64(7)
    offsets = np.zeros(len(zigzag) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    data = np.empty(int(offsets[-1]), dtype=np.uint8)
    starts = offsets[:-1]
    for place in range(int(lengths.max(initial=0))):
        here = lengths > place
        low = (zigzag[here] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = (lengths[here] > place + 1).astype(np.uint64) << np.uint64(7)
        data[starts[here] + place] = (low | more).astype(np.uint8)
    return offsets, data


def _width(zigzag: np.uint64) -> int:
    return max(1, -(-int(zigzag).bit_length() // 7))


def cut(offsets: NDArray[np.int64], data: bytes) -> list[bytes]:
    """Return the pieces of `data` between neighbouring offsets."""
    return [data[start:stop] for start, stop in pairwise(offsets.tolist())]
