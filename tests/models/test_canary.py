"""Canaries: who is in the share, how often chance decides, and which step a comparison asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.canary import in_share, next_step
from models.lifecycle import Lifecycle, ModelState, decision
from models.monitoring.observation import Observation
from models.monitoring.sequential import gain
from models.settings import CanarySettings

DAY, NOON = 86_400_000, 1_500_000_000_000
DEALERS, WINDOWS, RUNS = 60, 12, 300


def losses(rng: np.random.Generator, better: float) -> tuple[np.ndarray, ...]:
    """Losses of two versions by window and dealer: skewed, of dealers who differ, alike within each dealer."""
    size = rng.gamma(0.5, 4.0, DEALERS)
    old = size * rng.gamma(2.0, 0.5, (WINDOWS, DEALERS))
    # The new version is better for some dealers and worse for others, always the same ones.
    own = 0.15 * rng.normal(size=DEALERS)
    new = old * (1 - better + own + 0.2 * rng.normal(size=(WINDOWS, DEALERS)))
    dealer = np.tile(np.arange(DEALERS), WINDOWS)
    return old.ravel(), new.ravel(), dealer


def looks(better: float) -> tuple[float, float]:
    """The shares of runs in which the new version is called better, and worse, at any look after a window."""
    called = np.zeros(2)
    for seed in range(RUNS):
        old, new, dealer = losses(np.random.default_rng(seed), better)
        found = [
            gain(old[:upto], new[:upto], dealer[:upto], 0.05)
            for upto in range(2 * DEALERS, len(old) + 1, DEALERS)
        ]
        called += [any(each.low > 0 for each in found), any(each.high < 0 for each in found)]
    return float(called[0] / RUNS), float(called[1] / RUNS)


def test_asked_after_every_window_a_version_that_is_no_better_is_seldom_called_so() -> None:
    better, worse = looks(0.0)
    most = 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / RUNS)
    assert better + worse <= most


def test_a_version_that_is_better_or_worse_is_found_so() -> None:
    better, worse = looks(0.2)
    assert better > 0.8
    assert worse == 0.0
    better, worse = looks(-0.2)
    assert worse > 0.8
    assert better == 0.0


def test_without_pairs_nothing_is_told() -> None:
    nothing = np.empty(0)
    found = gain(nothing, nothing, np.empty(0, np.int64), 0.05)
    assert (found.low, found.high) == (float("-inf"), float("inf"))
    same = np.ones(100)
    assert gain(same, same, np.arange(100), 0.05).gain == 0.0


@given(st.text(min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_the_smaller_one(subject: str, a: float, b: float) -> None:
    small, large = sorted((a, b))
    assert in_share("m", subject, large) or not in_share("m", subject, small)
    assert in_share("m", subject, 1.0)
    assert not in_share("m", subject, 0.0)


def test_a_share_is_as_large_as_it_says_and_other_for_each_model() -> None:
    subjects = [f"D{n}/MEAT" for n in range(20_000)]
    inside = [in_share("m", each, 0.1) for each in subjects]
    assert np.mean(inside) == pytest.approx(0.1, abs=0.01)
    both = np.mean([a and in_share("n", each, 0.1) for a, each in zip(inside, subjects, strict=True)])
    assert both == pytest.approx(0.01, abs=0.004)


class Log:
    """A lifecycle that `next_step` writes, as the watch does."""

    def __init__(self) -> None:
        self.fold = Lifecycle()
        self.at = 0
        for version in ("v1", "v2", "v3"):
            self.step(version, "registered")
        self.step("v1", "champion")

    @property
    def state(self) -> ModelState:
        return self.fold.state("m")

    def step(self, version: str, stage: str, **more: Any) -> None:
        told = {"cause": f"c{self.at}", "event_time": NOON, "reason": "gates", **more}
        assert not self.fold.apply(decision(self.state, version, stage, "x", **told), self.at).void
        self.at += 1

    def seen(self, low: float, high: float, *, pairs: int = 100, window: int = 1) -> Observation:
        challenger = self.state.challenger or ""
        decided = self.state.versions[challenger].at
        start = NOON + (window - 1) * 7 * DAY
        details = {"low": low, "high": high, "pairs": float(pairs)}
        return Observation(
            "m", challenger, "challenger", decided, "canary", start, start + 7 * DAY, 50, 0.1, None, False,
            "told", details, "c",
        )  # fmt: skip

    def follow(self, *seen: Observation) -> str | None:
        step = next_step(self.state, seen, CanarySettings())
        if step is None:
            return None
        self.step(step.version, step.stage, reason=step.reason, cause=step.cause)
        return f"{step.version} {step.stage} {step.reason}"


def test_a_canary_that_is_better_is_promoted_watched_and_may_rest() -> None:
    log = Log()
    assert log.follow() is None
    log.step("v2", "challenger", share=0.1)
    assert log.follow() is None
    assert log.follow(log.seen(0.01, 0.2, pairs=59)) is None  # too few
    assert log.follow(log.seen(-0.1, 0.2)) is None  # undecided
    good = log.seen(0.01, 0.2)
    assert log.follow(good) == "v2 champion canary"
    assert log.follow(good) == "v1 challenger canary"
    assert (log.state.champion, log.state.challenger, log.state.share) == ("v2", "v1", 0.0)
    assert log.follow(good) is None  # what was seen before the decision is of another comparison
    assert log.follow(log.seen(0.01, 0.2)) is None  # worse than the old one, but not by the margin
    assert log.follow(log.seen(-0.3, -0.1), log.seen(-0.3, -0.1, window=12)) == "v1 retired canary"
    assert log.follow() is None  # watched once
    assert log.state.champion == "v2"


def test_a_new_champion_that_is_worse_than_the_old_one_is_rolled_back_by_itself() -> None:
    log = Log()
    log.step("v2", "challenger", share=0.1)
    log.follow(log.seen(0.01, 0.2))
    log.follow()
    assert log.follow(log.seen(0.03, 0.2)) == "v1 champion rollback"
    assert (log.state.champion, log.state.former) == ("v1", [])
    assert log.follow() is None


def test_a_canary_that_is_worse_or_never_better_goes() -> None:
    log = Log()
    log.step("v2", "challenger", share=0.1)
    assert log.follow(log.seen(-0.2, -0.01)) == "v2 rejected canary"
    log.step("v3", "challenger", share=0.1)
    early, late = log.seen(-0.1, 0.1), log.seen(-0.1, 0.1, window=12)
    assert log.follow(early) is None
    assert log.follow(early, late) == "v3 rejected canary"
    assert (log.state.champion, log.state.challenger) == ("v1", None)


def test_a_person_is_not_overruled_and_a_plain_challenger_not_promoted() -> None:
    log = Log()
    log.step("v2", "challenger")
    assert log.follow(log.seen(0.5, 0.9)) is None
    log.step("v2", "champion", reason="person")
    assert log.follow() is None
