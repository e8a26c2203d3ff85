"""Gates promote what is better and nothing else; their intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.gates import Cost, Verdict, compare, gain, judge
from models.spec import Gate, Limits
from models.training import metrics

Floats = NDArray[np.float64]
CHEAP = Cost(0.1, 1.0, 10.0)


def mae(truth: Floats, answers: Floats, weights: Floats | None) -> dict[str, float]:
    w = np.ones(len(truth)) if weights is None else weights
    return {"mae": float((w * np.abs(truth - answers[:, 0])).sum() / w.sum())}


def answers_of(truth: Floats, noise: float, seed: int, bias: float = 0.0) -> Floats:
    return (truth + bias + np.random.default_rng(seed).normal(0, noise, len(truth)))[:, None]


def verdict(truth: Floats, new: Floats, naive: Floats, champion: Floats | None, **more: object) -> Verdict:
    groups = np.arange(len(truth)) % 40
    arguments = {"segments": {}, "cost": CHEAP, "gate": Gate("mae"), "limits": Limits()} | more
    return judge(
        mae, arguments["gate"], arguments["limits"], truth, new, naive, champion, groups,
        arguments["segments"], arguments["cost"],
    )  # type: ignore[arg-type]  # fmt: skip


TRUTH = np.random.default_rng(0).normal(10, 3, 2_000)


def test_what_is_better_than_both_passes() -> None:
    found = verdict(TRUTH, answers_of(TRUTH, 1, 1), answers_of(TRUTH, 3, 2), answers_of(TRUTH, 2, 3))
    assert found.passed
    assert found.against["champion"].low > 0
    assert "better than the champion" in found.text


@pytest.mark.parametrize("seed", range(20))
def test_what_is_as_good_as_the_champion_is_never_promoted(seed: int) -> None:
    """Twenty trainings on a stream that stays as it is: the same model with other noise, no promotion."""
    found = verdict(TRUTH, answers_of(TRUTH, 1, 100 + seed), answers_of(TRUTH, 3, 2), answers_of(TRUTH, 1, 3))
    assert not found.passed or found.against["champion"].gain > 0.02
    if not found.passed:
        assert "not better than the champion in mae" in found.reasons[0]


def test_each_reason_is_told() -> None:
    segment = np.zeros(len(TRUTH), np.bool_)
    segment[:400] = True
    champion = answers_of(TRUTH, 2, 3)
    new = answers_of(TRUTH, 0.5, 1)
    new[segment, 0] += 6.0
    few = np.zeros(len(TRUTH), np.bool_)
    few[:10] = True
    found = verdict(
        TRUTH, new, answers_of(TRUTH, 1, 2), champion, segments={"region=North": segment, "few": few},
        cost=Cost(50.0, 900.0, 9_999.0),
    )  # fmt: skip
    text = " ".join(found.reasons)
    for part in ("naive answer", "where region=North", "p99 of one row", "file, MB", "training, s"):
        assert part in text
    assert "few" not in text
    broken = verdict(TRUTH, np.full((len(TRUTH), 1), np.nan), new, None)
    assert broken.reasons == ["2000 answers on the holdout are not numbers"]


def test_a_first_version_needs_to_beat_the_naive_answer_alone() -> None:
    assert verdict(TRUTH, answers_of(TRUTH, 1, 1), answers_of(TRUTH, 3, 2), None).passed
    assert not verdict(TRUTH, answers_of(TRUTH, 3, 1), answers_of(TRUTH, 3, 2), None).passed


def test_intervals_cover_the_true_gain_as_often_as_they_say() -> None:
    """Rows of a group share their noise: an interval over rows would be far too narrow."""
    inside, times, size = 0, 80, 60
    for seed in range(times):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(size), 10)
        truth = np.zeros(len(groups))
        new, other = (np.repeat(rng.normal(0, s, size), 10)[:, None] for s in (1.0, 1.25))
        found = compare(mae, "mae", truth, new, other, groups, confidence=0.9, seed=seed)
        inside += found.low <= 1 - 1.0 / 1.25 <= found.high
    assert inside >= 0.78 * times


@given(
    st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_gain_is_positive_exactly_where_better(new: float, other: float, smaller: bool) -> None:
    assert (gain(new, other, smaller) > 0) == (new < other if smaller else new > other)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_weights_are_rows_taken_more_than_once(seed: int) -> None:
    """Every metric with weights equals itself on the rows repeated."""
    rng = np.random.default_rng(seed)
    size = 200
    times = rng.integers(0, 4, size)
    again = np.repeat(np.arange(size), times)
    truth = rng.gamma(2.0, 2.0, size)
    quantiles = np.sort(rng.gamma(2.0, 2.0, (size, 3)), axis=1)
    yes, p = (rng.random(size) < 0.4).astype(np.float64), rng.random(size)
    yes[:2] = 0, 1
    times[:2] = np.maximum(times[:2], 1)
    again = np.repeat(np.arange(size), times)
    for one, two in (
        (
            metrics.quantiles(truth, quantiles, (0.1, 0.5, 0.9), times.astype(np.float64)),
            metrics.quantiles(truth[again], quantiles[again], (0.1, 0.5, 0.9)),
        ),
        (metrics.binary(yes, p, times.astype(np.float64)), metrics.binary(yes[again], p[again])),
    ):
        for name in one.keys() - {"calibration_error"}:  # its bins move with the rows that stand at an edge
            assert one[name] == pytest.approx(two[name], rel=1e-9), name
        assert one.get("calibration_error", 0) == pytest.approx(two.get("calibration_error", 0), abs=0.05)


def test_metrics_by_hand() -> None:
    truth, answers = np.array([10.0, 0.0]), np.array([[8.0, 9.0, 12.0], [0.0, 1.0, 2.0]])
    found = metrics.quantiles(truth, answers, (0.1, 0.5, 0.9))
    by_hand = 2 * ((0.1 * 2 + 0) + (0.5 * 1 + 0.5 * 1) + (0.1 * 2 + 0.1 * 2)) / 10 / 3
    assert found["wql"] == pytest.approx(by_hand)
    assert found["mae"] == 1.0
    assert found["coverage"] == 1.0
    assert metrics.mase(truth, answers[:, 1], np.array([2.0, np.nan])) == 0.5
    perfect = metrics.binary(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.8, 0.9]))
    assert perfect["auc"] == perfect["average_precision"] == 1.0
    assert np.isnan(metrics.binary(np.zeros(3), np.array([0.1, 0.8, 0.9]))["auc"])
    calibrated = np.random.default_rng(1).random(20_000)
    outcome = (np.random.default_rng(2).random(20_000) < calibrated).astype(np.float64)
    assert metrics.binary(outcome, calibrated)["calibration_error"] < 0.02
    assert metrics.binary(outcome, calibrated**3)["calibration_error"] > 0.2
