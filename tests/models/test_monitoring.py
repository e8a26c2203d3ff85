"""Monitors on streams that are known: no more false alarms than asked for, and a change is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.artifact import ArtifactError
from models.monitoring.alarms import alarms
from models.monitoring.drift import DriftTest, psi
from models.monitoring.errors import by_block, ranks, rises
from models.monitoring.observation import Observation
from models.monitoring.performance import Estimator, Losses, WorseTest
from models.monitoring.reference import Reference, load_reference, save_reference
from models.schedule import due
from models.specs import spec
from schemas.validate import problems

WEEKS, DEALERS, SERIES = 8, 120, 12
RUNS = 300
DAY, NOON = 86_400_000, 1_500_000_000_000


def world(
    rng: np.random.Generator, weeks: int, dealers: int = DEALERS, shock: float = 0.0
) -> tuple[NDArray[np.float32], ...]:
    """Rows of a stationary stream: correlated, skewed series, alike within a dealer and week, a part missing.

    Returns series, block, week and a probability that is calibrated by construction, with its outcome.
    """
    block = np.repeat(np.arange(weeks * dealers), 3)
    shared = rng.normal(size=(weeks * dealers, 1)) + 0.5 * rng.normal(size=(weeks * dealers, SERIES))
    shared += shock * rng.normal(size=(weeks, 1)).repeat(dealers, axis=0)
    x = np.exp(shared[block] + 0.3 * rng.normal(size=(len(block), SERIES))).astype(np.float32)
    x[:, 1] = np.round(x[:, 0] * 10)  # two series that say the same
    x[:, 2] = 7.0  # one that says nothing
    x[rng.random(x.shape) < 0.05] = np.nan
    p = rng.beta(1.0, 4.0, weeks * dealers)[block]
    y = (rng.random(len(block)) < p).astype(np.float64)
    return x, block, block // dealers, p, y


def reference_of(rng: np.random.Generator, shock: float = 0.0) -> Reference:
    x, block, week, p, y = world(rng, WEEKS, shock=shock)
    return Reference(x, p[:, None].astype(np.float32), y, block, week)


def share(hits: int, asked: float) -> None:
    """The rate is what was asked, as far as so many runs can tell: within 3.5 standard deviations above it."""
    most = asked + 3.5 * np.sqrt(asked * (1 - asked) / RUNS)
    assert hits / RUNS <= most, f"{hits} false alarms of {RUNS}, asked for {asked:.0%}"


def test_drift_raises_no_more_false_alarms_than_asked_over_all_series_together() -> None:
    asked, hits, dealers = 0.05, 0, 100
    for seed in range(RUNS // 10):
        rng = np.random.default_rng(seed)
        reference = reference_of(rng)
        test = DriftTest(reference, reference.x, false_alarms=asked, draws=400, seed=seed)
        for _ in range(10):  # ten windows of one stream
            x, *_ = world(rng, 1, dealers)
            hits += test.judge(x, dealers).alarm
    share(hits, asked)
    assert hits > 0, "limits that nothing ever passes are not calibrated"


def test_a_change_of_one_input_is_seen_and_named() -> None:
    rng = np.random.default_rng(5)
    reference = reference_of(rng)
    test = DriftTest(reference, reference.x, false_alarms=0.01, draws=1_000, seed=1)
    x, *_ = world(rng, 1)
    assert not test.judge(x, DEALERS).alarm
    x[:, 7] *= 2.0
    found = test.judge(x, DEALERS)
    assert found.alarm
    assert found.worst == 7
    x, *_ = world(rng, 1)
    x[:, 2] = 8.0  # what never changed
    assert test.judge(x, DEALERS).worst == 2
    x, *_ = world(rng, 1)
    x[rng.random(len(x)) < 0.5, 4] = np.nan  # a source that fails half the time
    assert test.judge(x, DEALERS).worst == 4


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12), st.integers(1, 5))
def test_the_index_is_the_textbooks_and_nothing_for_the_same_shares(counts: list[int], times: int) -> None:
    expected = np.array(counts, float)
    actual = np.array(counts[::-1], float)
    e, a = ((each + 0.5) / (each.sum() + 0.5 * len(counts)) for each in (expected, actual))
    wanted = sum((a[i] - e[i]) * np.log(a[i] / e[i]) for i in range(len(counts)))
    assert psi(expected, actual) == pytest.approx(wanted)
    assert psi(expected, expected) == 0.0
    assert psi(expected, actual) == pytest.approx(psi(actual, expected))


@pytest.mark.parametrize("kind", ["estimated", "measured", "errors"])
def test_performance_raises_no_more_false_alarms_than_asked(kind: str) -> None:
    churn, asked, hits, dealers = spec("churn"), 0.05, 0, 100
    for seed in range(RUNS // 10):
        rng = np.random.default_rng(seed)
        reference = reference_of(rng)
        answers = reference.answers.astype(float)
        usual = Losses(churn.loss(reference.y, answers), churn.scale(reference.y))
        estimate = Estimator(churn, reference)
        if kind == "estimated":
            usual = estimate(reference.answers)
        worse = WorseTest(reference, usual, false_alarms=asked, draws=400, seed=seed)
        stream = []
        for _ in range(10):
            _, block, _, p, y = world(rng, 1, dealers)
            answers = p[:, None].astype(np.float32)
            loss = Losses(churn.loss(y, answers.astype(float)), churn.scale(y))
            if kind == "estimated":
                loss = estimate(answers)
            if kind == "errors":
                stream += by_block(loss.loss, loss.scale, block)[0].tolist()
            else:
                hits += loss.value > worse.limit(dealers)
        if kind == "errors":
            known, _ = by_block(usual.loss, usual.scale, reference.block)
            hits += len({at // dealers for at in rises(ranks(np.array(stream), known).tolist(), asked)})
    share(hits, asked)


def test_what_goes_worse_is_measured_and_what_becomes_harder_is_estimated() -> None:
    churn, rng = spec("churn"), np.random.default_rng(3)
    reference = reference_of(rng)
    estimate = Estimator(churn, reference)
    answers = reference.answers.astype(float)
    usual = Losses(churn.loss(reference.y, answers), churn.scale(reference.y))
    before, measured = (
        WorseTest(reference, each, false_alarms=0.0025) for each in (estimate(reference.answers), usual)
    )
    assert usual.value == pytest.approx(churn.metrics(reference.y, answers)["log_loss"])
    assert before.value == pytest.approx(usual.value, rel=0.05)  # its probabilities are calibrated
    _, block, _, p, y = world(rng, 1)
    given = p[:, None].astype(np.float32)
    # The same inputs, other outcomes: only outcomes can tell.
    turned = Losses(churn.loss(1 - y, given.astype(float)), churn.scale(y))
    assert turned.value > measured.limit(DEALERS)
    assert estimate(given).value <= before.limit(DEALERS)
    # Harder inputs: the model knows that it is unsure before any outcome comes.
    unsure = np.full_like(given, 0.5)
    assert estimate(unsure).value > before.limit(DEALERS)
    assert estimate(unsure).value == pytest.approx(np.log(2))
    known, _ = by_block(usual.loss, usual.scale, reference.block)
    good, _ = by_block(churn.loss(y, given.astype(float)), churn.scale(y), block)
    bad, _ = by_block(turned.loss, turned.scale, block)
    stream = ranks(np.concatenate([good, bad]), known)
    assert rises(stream.tolist(), 0.0025)
    assert rises(stream.tolist(), 0.0025)[0] >= len(good)
    assert not rises(stream[::-1].tolist(), 0.0025)  # better is no alarm


def test_a_forecast_is_told_in_the_gates_metric() -> None:
    demand, rng = spec("demand_forecast"), np.random.default_rng(4)
    truth = rng.gamma(1.0, 50.0, 400)
    answers = np.sort(truth[:, None] * rng.uniform(0.5, 1.5, (400, 3)), axis=1)
    told = Losses(demand.loss(truth, answers), demand.scale(truth))
    assert told.value == pytest.approx(demand.metrics(truth, answers)["wql"])
    block = np.arange(400)
    reference = Reference(np.zeros((400, 1), np.float32), answers.astype(np.float32), truth, block, block // 50)
    assert Estimator(demand, reference)(reference.answers).value == pytest.approx(told.value)


def test_a_reference_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    reference = reference_of(np.random.default_rng(0))
    file = save_reference(tmp_path, reference)
    read = load_reference(tmp_path, SERIES, 1)
    assert all(
        np.array_equal(getattr(read, name), getattr(reference, name), equal_nan=True)
        for name in ("x", "answers", "y", "block", "period")
    )
    with pytest.raises(ArtifactError, match="of another model"):
        load_reference(tmp_path, SERIES + 1, 1)
    file.write_bytes(file.read_bytes()[:2_000])
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_reference(tmp_path, SERIES, 1)
    file.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_reference(tmp_path, SERIES, 1)


def seen(model: str, monitor: str, end: int, alarm: bool = True) -> Observation:
    start, end = NOON + (end - 7) * DAY, NOON + end * DAY
    return Observation(model, "v", "champion", 3, monitor, start, end, 50, 1.0, 0.5, alarm, "worse", {}, "c")


def test_alarms_of_a_window_ask_once_and_not_again_while_it_cools_down() -> None:
    log = [
        seen("a", "inputs", 7), seen("a", "outputs", 7), seen("a", "measured", 7, alarm=False),
        seen("b", "inputs", 14), seen("a", "inputs", 14), seen("a", "measured", 21),
    ]  # fmt: skip
    found = alarms(log, cool_down_ms=14 * DAY)
    assert [(each.model, (each.window_end - NOON) // DAY) for each in found] == [("a", 7), ("b", 14), ("a", 21)]
    assert found[0].text == "inputs: worse; outputs: worse"
    assert found[0].cause == log[0].event_id
    assert len(alarms(log, cool_down_ms=0)) == 4
    assert problems("model.monitors", log[0].record()) == []


@given(st.sampled_from(["weekly", "biweekly", "monthly"]), st.integers(0, 60))
def test_a_schedule_is_due_when_its_days_have_passed(schedule: str, days: int) -> None:
    wanted = days >= {"weekly": 7, "biweekly": 14, "monthly": 30}[schedule]
    assert due(schedule, 1_000, 1_000 + days * DAY) is wanted
    assert not due("never", 1_000, 1_000 + days * DAY)
