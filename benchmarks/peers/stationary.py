"""In the training environment: streams simulated through the monitors and the comparison of canaries.

`python -m benchmarks.peers.stationary JOB OUT` reads and writes JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.monitoring.drift import DriftTest
from models.monitoring.errors import by_block, ranks, rises, spread_of_weeks, steadied
from models.monitoring.performance import Estimator, Losses, WorseTest
from models.monitoring.reference import Reference
from models.monitoring.sequential import gain
from models.settings import CanarySettings, MonitorSettings
from models.specs import spec

Floats = NDArray[np.float64]
DEALERS, SERIES, WEEKS, CHANGED = 150, 27, 8, 4
SHOCKS, ASKED = (0.0, 0.1, 0.2), 0.05
_FAMILIES = 4


class Stream:
    """Weeks of one stream: a dealer has a size of its own, a row an honest probability and its outcome.

    `shock` is what all dealers of a week share, as a part of the spread among dealers.
    """

    def __init__(self, seed: int, shock: float = 0.0) -> None:
        self.rng, self.shock = np.random.default_rng(seed), shock
        self.size = self.rng.normal(size=(DEALERS, 1))

    def week(self, anew: float = 0.0) -> tuple[NDArray[np.float32], Floats, Floats, Floats]:
        """Return inputs, the champion's probability, the outcome, and the probability of who knows the truth.

        `anew` is the share of rows whose outcome no longer follows the inputs.
        """
        rng = self.rng
        mixed = 0.7 * self.size + 0.7 * rng.normal(size=(DEALERS, 1)) + self.shock * rng.normal()
        x = np.exp(mixed + 0.5 * rng.normal(size=(DEALERS, SERIES))).astype(np.float32)
        p = 1 / (1 + np.exp(2.0 - mixed[:, 0] - 0.5 * rng.normal(size=DEALERS)))
        truth = (1 - anew) * p + anew * 0.5
        y = (rng.random(DEALERS) < truth).astype(np.float64)
        return x, p, y, truth

    def reference(self) -> Reference:
        """Return eight weeks."""
        weeks = [self.week() for _ in range(WEEKS)]
        x, p, y = (np.concatenate([each[at] for each in weeks]) for at in range(3))
        period = np.repeat(np.arange(WEEKS), DEALERS)
        return Reference(x, p[:, None].astype(np.float32), y, np.arange(len(y)), period)


class Watch:
    """The monitors of one version, as the watch asks them."""

    def __init__(self, reference: Reference, settings: MonitorSettings) -> None:
        self.spec = spec("churn")
        self.each = settings.false_alarms / _FAMILIES
        series = np.hstack([reference.x, reference.answers])
        self.drift = DriftTest(reference, series, false_alarms=self.each, least=settings.least_psi)
        self.estimate = Estimator(self.spec, reference)
        answers = reference.answers.astype(np.float64)
        usual = Losses(self.spec.loss(reference.y, answers), self.spec.scale(reference.y))
        self.estimated = WorseTest(reference, self.estimate(reference.answers), false_alarms=self.each)
        self.measured = WorseTest(reference, usual, false_alarms=self.each)
        self.known = by_block(usual.loss, usual.scale, reference.block)[0]
        self.spread = spread_of_weeks(ranks(self.known, self.known), reference.period)
        self.errors: list[float] = []

    def alarm(self, x: NDArray[np.float32], p: Floats, y: Floats) -> bool:
        """Judge a week."""
        answers = p[:, None].astype(np.float32)
        loss = Losses(self.spec.loss(y, answers.astype(np.float64)), self.spec.scale(y))
        begin = len(self.errors)
        self.errors += by_block(loss.loss, loss.scale, np.arange(len(y)))[0].tolist()
        ranked = ranks(np.array(self.errors), self.known)
        seen = rises(steadied(ranked, np.arange(len(ranked)) // len(y), self.spread).tolist(), self.each)
        return (
            self.drift.judge(np.hstack([x, answers]), DEALERS).alarm
            or self.estimate(answers).value > self.estimated.limit(DEALERS)
            or loss.value > self.measured.limit(DEALERS)
            or any(place >= begin for place in seen)
        )


def stationary(seed: int, weeks: int) -> tuple[int, int]:
    """Return the weeks with an alarm, and whether a version that is no better was ever promoted."""
    stream, settings = Stream(seed), CanarySettings()
    watch = Watch(stream.reference(), MonitorSettings())
    alarms, old, new = 0, [], []
    promoted = False
    for week in range(weeks):
        x, p, y, _ = stream.week()
        alarms += watch.alarm(x, p, y)
        # Another fit of the same: as far from the champion as two samples make it, never nearer to the truth.
        other = np.clip(p + 0.03 * stream.rng.normal(size=DEALERS), 1e-3, 1 - 1e-3)
        old.append(watch.spec.loss(y, p[:, None]))
        new.append(watch.spec.loss(y, other[:, None]))
        dealer = np.tile(np.arange(DEALERS), week + 1)
        found = gain(np.concatenate(old), np.concatenate(new), dealer, 1 - settings.confidence)
        promoted |= found.pairs >= settings.least_pairs and found.low > 0
    return alarms, int(promoted)


def shared(seed: int, weeks: int, shock: float) -> float:
    """Return the share of weeks with an alarm where dealers share shocks, one in twenty asked for, and no PSI
    too small to be one.
    """
    stream = Stream(seed, shock)
    watch = Watch(stream.reference(), MonitorSettings(false_alarms=ASKED, least_psi=0.0))
    return float(np.mean([watch.alarm(*stream.week()[:3]) for _ in range(weeks)]))


def interval(shares: list[float]) -> tuple[float, float, float]:
    """Return the mean of streams' shares and its interval at 95 %, by a bootstrap over streams."""
    rng, each = np.random.default_rng(0), np.array(shares)
    means = each[rng.integers(0, len(each), (4_000, len(each)))].mean(axis=1)
    return float(each.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def changed(seed: int, weeks: int) -> tuple[int | None, int | None]:
    """Return the weeks from the change to the alarm, and from the canary's begin to its promotion."""
    stream, settings = Stream(seed), CanarySettings()
    watch = Watch(stream.reference(), MonitorSettings())
    asked, improved = None, None
    old: list[Floats] = []
    new: list[Floats] = []
    for week in range(CHANGED + weeks):
        x, p, y, truth = stream.week(0.0 if week < CHANGED else 0.25)
        if watch.alarm(x, p, y) and week >= CHANGED and asked is None:
            asked = week - CHANGED + 1
        if asked is None or improved is not None:
            continue
        old.append(watch.spec.loss(y, p[:, None]))
        new.append(watch.spec.loss(y, truth[:, None]))
        dealer = np.tile(np.arange(DEALERS), len(old))
        found = gain(np.concatenate(old), np.concatenate(new), dealer, 1 - settings.confidence)
        if found.pairs >= settings.least_pairs and found.low > 0:
            improved = len(old)
    return asked, improved


def main(arguments: list[str]) -> int:
    """Run the job of a file and write what was found to another."""
    job: dict[str, Any] = json.loads(Path(arguments[0]).read_text())
    runs, weeks = job["runs"], job["weeks"]
    still = [stationary(seed, weeks) for seed in range(runs)]
    moved = [changed(1_000 + seed, weeks) for seed in range(runs)]
    shaken = {
        str(shock): interval([shared(2_000 + seed, weeks, shock) for seed in range(runs)]) for shock in SHOCKS
    }
    asked, improved = ([each[at] for each in moved if each[at] is not None] for at in range(2))
    told = {
        "runs": runs, "weeks": weeks, "dealers": DEALERS, "series": SERIES, "windows": runs * weeks,
        "alarms": sum(each[0] for each in still), "promoted": sum(each[1] for each in still),
        "found": len(asked), "improved": len(improved),
        "shared_shocks": shaken, "asked": ASKED, "weeks_to_alarm": asked, "weeks_to_promotion": improved,
    }  # fmt: skip
    Path(arguments[1]).write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
