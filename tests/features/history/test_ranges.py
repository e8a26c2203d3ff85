"""Sums, extremes and registers of any run of events equal the same of the run alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.history.ranges import Extremes, PrefixSums, Registers
from features.sketch import coupon, estimate, estimates

RUNS = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)).map(sorted), min_size=1, max_size=20)
AMOUNTS = st.one_of(st.floats(-1e9, 1e9), st.integers(0, 10**7).map(lambda cents: cents / 100))


def ends(runs: list[list[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    runs = np.minimum(np.array(runs), size)
    return runs[:, 0], runs[:, 1]


@settings(deadline=None)
@given(st.lists(AMOUNTS, max_size=120), RUNS)
def test_a_sum_is_right_to_the_last_digits(values: list[float], runs: list[list[int]]) -> None:
    lo, hi = ends(runs, len(values))
    got = PrefixSums(np.array(values)).between(lo, hi)
    top = max(map(abs, values), default=0.0)
    for total, a, b in zip(got, lo, hi, strict=True):
        # Two roundings of the sum itself, and the fine unit: twenty digits below the largest value.
        assert total == pytest.approx(math.fsum(values[a:b]), rel=4e-16, abs=top * 1e-20)


def test_what_stands_before_a_run_costs_it_no_digit() -> None:
    values = np.concatenate([np.full(100_000, 9_999_999.99), np.full(3, 0.01)])
    (got,) = PrefixSums(values).between(np.array([100_000]), np.array([100_003]))
    assert got == 0.03
    naive = np.cumsum(values)
    assert naive[-1] - naive[-4] != 0.03  # what it is for


@settings(deadline=None)
@given(st.lists(AMOUNTS, max_size=120), RUNS, st.sampled_from([np.minimum, np.maximum]))
def test_extremes(values: list[float], runs: list[list[int]], fold: np.ufunc) -> None:
    lo, hi = ends(runs, len(values))
    empty = np.inf if fold is np.minimum else -np.inf
    got = Extremes(np.array(values), fold, empty).between(lo, hi)
    assert got.tolist() == [fold.reduce(values[a:b], initial=empty) for a, b in zip(lo, hi, strict=True)]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 5000).map(str)), max_size=120), RUNS)
def test_registers_give_the_estimate_of_the_coupons(values: list[str | None], runs: list[list[int]]) -> None:
    coupons = [-1 if value is None else coupon(value) for value in values]
    lo, hi = ends(runs, len(values))
    got = estimates(Registers(np.array(coupons, np.int64), 10).between(lo, hi))
    for count, a, b in zip(got, lo, hi, strict=True):
        some = np.array(sorted({each for each in coupons[a:b] if each >= 0}), np.uint32)
        assert count == estimate(some)


@pytest.mark.parametrize("count", [1, 700, 2_600, 40_000])
def test_estimates_equal_the_estimate_at_any_size(count: int) -> None:
    coupons = np.array([coupon(str(i)) for i in range(count)], np.int64)
    (got,) = estimates(Registers(coupons, 10).between(np.array([0]), np.array([count])))
    assert got == estimate(np.unique(coupons).astype(np.uint32))
