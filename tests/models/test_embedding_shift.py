"""Shifts of vectors: the rate of false alarms is what is asked for, and a change is seen."""

from __future__ import annotations

import numpy as np
import pytest

from models.embedding.shift import Sample, neighbour_overlap, shift

WINDOWS, RUNS = 4, 240
SCALES = np.linspace(2.0, 0.3, 24)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(rng, count, name, windows=1, off=0.0, shock=0.0):
    """Owners of a kind that has a middle and a shape; `shock` moves each window as a whole."""
    window = np.arange(count) % windows
    rows = rng.normal(size=(count, len(SCALES))) * SCALES + 0.5 + off
    rows += shock * rng.normal(size=(windows, len(SCALES)))[window]
    return Sample(unit(rows), [f"{name}/{number}" for number in range(count)], window)


def alarms(seed, runs, asked=0.05, **window):
    rng, hits = np.random.default_rng(seed), 0
    for run in range(runs):
        reference = drawn(rng, 80, "product", WINDOWS)
        live = drawn(rng, 40, "new", **window)
        hits += shift(reference, live, false_alarms=asked, draws=99, seed=run).alarm
    return hits


def test_the_rate_of_false_alarms_is_what_was_asked() -> None:
    asked, hits = 0.05, alarms(7, RUNS)
    spread = 3.5 * np.sqrt(asked * (1 - asked) / RUNS)
    assert hits / RUNS <= asked + spread, f"{hits} of {RUNS}"
    assert hits > 0  # a test that never raises would pass, too


def test_a_shifted_window_is_seen() -> None:
    assert alarms(8, 20, asked=0.01, off=0.8) >= 18


def test_owners_that_both_have_change_places_only_with_themselves() -> None:
    """Each owner moves a little in the same direction: hidden among unlike owners, seen within each."""
    rng = np.random.default_rng(3)
    reference = drawn(rng, 60, "product")
    moved = unit(reference.vectors + 0.05 * np.eye(len(SCALES))[20])
    same = Sample(moved, reference.owners, reference.window)
    others = Sample(moved, [f"other/{at}" for at in range(60)], reference.window)
    assert shift(reference, same, false_alarms=0.01).alarm
    assert not shift(reference, others, false_alarms=0.01).alarm


def test_windows_that_differ_by_themselves_widen_the_limit() -> None:
    rng, asked, runs, hits, bare = np.random.default_rng(5), 0.05, 60, 0, 0
    for run in range(runs):
        both = drawn(rng, 360, "product", 9, shock=0.5)
        inside = both.window < 8
        names = np.array(both.owners)
        parts = [Sample(both.vectors[rows], list(names[rows]), both.window[rows]) for rows in (inside, ~inside)]
        hits += shift(*parts, false_alarms=asked, draws=99, seed=run).alarm
        flat = Sample(parts[0].vectors, parts[0].owners, np.zeros(inside.sum(), np.int64))
        bare += shift(flat, parts[1], false_alarms=asked, draws=99, seed=run).alarm
    assert hits < bare / 3


def test_the_statistic_is_the_one_of_its_definition() -> None:
    rng = np.random.default_rng(1)
    reference, live = drawn(rng, 30, "a"), drawn(rng, 20, "b")
    rows = [*reference.vectors.astype(float), *live.vectors.astype(float)]
    squared = [[float((a - b) @ (a - b)) for b in rows] for a in rows]
    middle = np.median([squared[i][j] for i in range(50) for j in range(i + 1, 50)])
    kernel = np.exp(-np.array(squared) / middle)
    wanted = kernel[:30, :30].mean() + kernel[30:, 30:].mean() - 2 * kernel[:30, 30:].mean()
    assert shift(reference, live, false_alarms=0.05, draws=99).value == pytest.approx(wanted, rel=1e-3)


def test_two_encodings_that_turn_the_space_have_the_same_neighbours() -> None:
    rng = np.random.default_rng(2)
    rows = unit(rng.normal(size=(100, 16)))
    turn, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    assert neighbour_overlap(rows, (rows @ turn).astype(np.float32)).mean() > 0.99
    assert neighbour_overlap(rows, unit(rng.normal(size=(100, 12)))).mean() == pytest.approx(0.1, abs=0.05)
