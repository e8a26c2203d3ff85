"""Merging tiles equals counting the events."""

import math
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.merge import Status, merge, window
from features.plan import load
from features.sketch import coupon
from features.tiles import CorruptBlobError, Tile, decode, encode

VIEW = load().views["dealer_feedback"]
NOW = 1_700_000_000_000
events = st.lists(st.tuples(st.integers(NOW - 100 * 86_400_000, NOW), st.integers(-50, 50)), max_size=60)


def fold(rows: list[tuple[int, int]]) -> list[Tile]:
    tiles = []
    for grain in VIEW.grains_ms:
        key = lambda row, grain=grain: row[0] // grain * grain  # noqa: E731
        for hop, group in groupby(sorted(rows, key=key), key):
            some = list(group)
            v = [float(each[1]) for each in some]
            last = max(enumerate(some), key=lambda each: (each[1][0], -each[0]))[1]
            doubles = (sum(v), sum(x * x for x in v), min(v), max(v), float(last[1]), float(last[0]))
            tiles.append(Tile(grain // 1000, hop, len(v), doubles, (), last[0], (1, 2)))
    return tiles


@settings(deadline=None, max_examples=200)
@given(events)
def test_merged_tiles_equal_the_events(rows: list[tuple[int, int]]) -> None:
    rows = list({row[0]: row for row in rows}.values())
    got = merge(VIEW, encode(fold(rows)), NOW)
    for feature, value in zip(VIEW.features, got.values, strict=True):
        start, end = window(VIEW, feature.window_ms, NOW)
        v = [each[1] for each in sorted(rows) if start <= each[0] < end]
        if feature.function == "count":
            want: float | None = len(v)
        elif not v:
            want = None
        else:
            mean = sum(v) / len(v)
            want = {
                "mean": mean,
                "std": math.sqrt(sum((x - mean) ** 2 for x in v) / len(v)),
                "min": min(v),
                "max": max(v),
                "last": v[-1],
            }[feature.function]
        assert value == (None if want is None else pytest.approx(want, abs=1e-5)), feature.name


@given(events)
@settings(deadline=None, max_examples=50)
def test_a_blob_round_trips(rows: list[tuple[int, int]]) -> None:
    tiles = sorted(fold(rows), key=lambda tile: (tile.hop_ms, tile.grain_s))
    assert decode(encode(reversed(tiles))).rows() == tiles


def test_a_corrupt_blob_is_refused() -> None:
    blob = bytearray(encode(fold([(NOW, 1)])))
    blob[40] ^= 1
    with pytest.raises(CorruptBlobError, match="checksum"):
        decode(bytes(blob))


def test_statuses_are_told_apart() -> None:
    assert set(merge(VIEW, None, NOW).statuses) == {Status.UNKNOWN}
    blob = encode(fold([(NOW - 2 * 86_400_000, 1)]))
    assert {Status.PRESENT, Status.EMPTY} == set(merge(VIEW, blob, NOW).statuses)
    assert set(merge(VIEW, blob, NOW + 100 * 86_400_000).statuses) == {Status.STALE}


def test_coupon_estimates() -> None:
    import numpy as np

    from features.sketch import estimate

    for count in (1, 100, 5000):
        got = estimate(np.array(sorted({coupon(f"c{i}") for i in range(count)}), np.uint32))
        assert abs(got - count) <= max(1, 0.1 * count)
