"""Approximate distinct counts: HyperLogLog kept as coupons, so that tiles merge by set union.

A coupon is `bucket << 6 | rank` of xxh64 (seed 0, UTF-8): the first `precision` bits of the hash are the
bucket, the rank counts the zeros after them, plus one (Flajolet et al., HyperLogLog, 2007; coupons as in Ting,
2014). Small counts use linear counting (Whang et al., 1990). With 1,024 buckets the standard error is
1.04 / 32 = 3.3 %.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

__all__ = ["NEVER", "coupon", "estimate", "estimates", "united"]

_ROWS = 256  # summed at once: what fits into a processor's cache
NEVER = 0xFFFFFFFF
"""The coupon of a tile that is older than its aggregate: nobody counted what is distinct in it."""


def coupon(value: str, precision: int = 10) -> int:
    """Return the coupon of a value."""
    bits = xxhash.xxh64_intdigest(value.encode())
    rest = (bits << precision) & 0xFFFF_FFFF_FFFF_FFFF
    rank = min(64 - rest.bit_length(), 64 - precision) + 1
    return bits >> (64 - precision) << 6 | rank


def estimate(coupons: NDArray[np.uint32], precision: int = 10) -> int:
    """Estimate how many distinct values gave these ascending coupons; repeats change nothing."""
    if not len(coupons):
        return 0
    m = 1 << precision
    registers = np.zeros(m, np.int64)
    registers[coupons >> 6] = coupons & 63  # ascending: the greatest rank of a bucket is written last
    raw = 0.7213 / (1 + 1.079 / m) * m * m / np.ldexp(1.0, -registers).sum()
    empty = int((registers == 0).sum())
    return round(m * np.log(m / empty)) if raw <= 2.5 * m and empty else round(float(raw))


def estimates(registers: NDArray[np.uint8], precision: int = 10) -> NDArray[np.int64]:
    """Estimate many at once what `estimate` does of one: a row holds the greatest rank of each bucket, or 0."""
    m = 1 << precision
    table, linear = _tables(precision)
    pairs, found = registers.view("<u2"), np.empty(len(registers))
    part = np.empty((min(len(pairs), _ROWS), m // 2))
    for start in range(0, len(pairs), _ROWS):
        some = part[: len(pairs) - start]
        np.take(table, pairs[start : start + _ROWS], out=some, mode="clip")
        np.sum(some, axis=1, out=found[start : start + _ROWS])
    empty = (found / (2 * m)).astype(np.int64)
    raw = 0.7213 / (1 + 1.079 / m) * m * m / (found - 2 * m * empty)
    small = (raw <= 2.5 * m) & (empty > 0)
    out: NDArray[np.int64] = np.where(small, linear[empty], np.rint(raw)).astype(np.int64)
    return out


def united(
    ends: NDArray[np.uint32], coupons: NDArray[np.uint32], used: NDArray[np.bool_], precision: int = 10
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Unite the coupons of tiles, once for each row of `used`: registers for `estimates`, and what is unknown.

    `ends` says where each tile's coupons end. Unknown is a row of which a tile holds NEVER.
    """
    registers = np.zeros((len(used), 1 << precision), np.uint8)
    unknown: NDArray[np.bool_] = np.zeros(len(used), np.bool_)
    if not len(coupons):
        return registers, unknown
    sizes = ends.astype(np.intp)
    sizes[1:] -= ends[:-1]
    owner = np.arange(len(ends)).repeat(sizes)
    if coupons.max() == NEVER:
        counted = coupons != NEVER
        unknown = np.logical_or.reduce(used[:, owner[~counted]], 1)
        owner, coupons = owner[counted], coupons[counted]
    # Ascending, so that the greatest rank of a bucket is written last; 16 bits are sorted in linear time.
    narrow: NDArray[Any] = coupons.astype(np.uint16 if precision <= 10 else np.uint32)
    order = narrow.argsort(kind="stable")
    rows, columns = used.take(owner.take(order), 1).nonzero()
    chosen = narrow.take(order.take(columns))
    rows <<= precision
    rows += chosen >> 6
    registers.reshape(-1)[rows] = chosen & 63
    return registers, unknown


@cache
def _tables(precision: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What the two bytes of a pair of ranks add, and the count by empty buckets.

    A rank r adds 2^-r, in all at most m, and an empty bucket 2m more: one look-up gives both.
    """
    m = 1 << precision
    adds = np.ldexp(1.0, -np.arange(256))
    adds[0] += 2 * m
    linear = [0] + [round(m * np.log(m / empty)) for empty in range(1, m + 1)]
    return (adds[:, None] + adds[None, :]).reshape(-1), np.array(linear)
