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
from models.monitoring.errors import by_block, ranks, rises
from models.monitoring.performance import Estimator, Losses, WorseTest
from models.monitoring.reference import Reference
from models.monitoring.sequential import gain
from models.settings import CanarySettings, MonitorSettings
from models.specs import spec

Floats = NDArray[np.float64]
DEALERS, SERIES, WEEKS, CHANGED = 150, 27, 8, 4
_FAMILIES = 4


class Stream:
    """Weeks of one stream: a dealer has a size of its own, a row an honest probability and its outcome."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = self.rng.normal(size=(DEALERS, 1))

    def week(self, anew: float = 0.0) -> tuple[NDArray[np.float32], Floats, Floats, Floats]:
        """Return inputs, the champion's probability, the outcome, and the probability of who knows the truth.

        `anew` is the share of rows whose outcome no longer follows the inputs.
        """
        rng = self.rng
        mixed = 0.7 * self.size + 0.7 * rng.normal(size=(DEALERS, 1))
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
    """The monitors of one version, as the watch asks them at its default settings."""

    def __init__(self, reference: Reference) -> None:
        settings, self.spec = MonitorSettings(), spec("churn")
        self.each = settings.false_alarms / _FAMILIES
        series = np.hstack([reference.x, reference.answers])
        self.drift = DriftTest(reference, series, false_alarms=self.each, least=settings.least_psi)
        self.estimate = Estimator(self.spec, reference)
        answers = reference.answers.astype(np.float64)
        usual = Losses(self.spec.loss(reference.y, answers), self.spec.scale(reference.y))
        self.estimated = WorseTest(reference, self.estimate(reference.answers), false_alarms=self.each)
        self.measured = WorseTest(reference, usual, false_alarms=self.each)
        self.known = by_block(usual.loss, usual.scale, reference.block)[0]
        self.errors: list[float] = []

    def alarm(self, x: NDArray[np.float32], p: Floats, y: Floats) -> bool:
        """Judge a week."""
        answers = p[:, None].astype(np.float32)
        loss = Losses(self.spec.loss(y, answers.astype(np.float64)), self.spec.scale(y))
        begin = len(self.errors)
        self.errors += by_block(loss.loss, loss.scale, np.arange(len(y)))[0].tolist()
        seen = rises(ranks(np.array(self.errors), self.known).tolist(), self.each)
        return (
            self.drift.judge(np.hstack([x, answers]), DEALERS).alarm
            or self.estimate(answers).value > self.estimated.limit(DEALERS)
            or loss.value > self.measured.limit(DEALERS)
            or any(place >= begin for place in seen)
        )


def stationary(seed: int, weeks: int) -> tuple[int, int]:
    """Return the weeks with an alarm, and whether a version that is no better was ever promoted."""
    stream, settings = Stream(seed), CanarySettings()
    watch = Watch(stream.reference())
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


def changed(seed: int, weeks: int) -> tuple[int | None, int | None]:
    """Return the weeks from the change to the alarm, and from the canary's begin to its promotion."""
    stream, settings = Stream(seed), CanarySettings()
    watch = Watch(stream.reference())
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
    asked, improved = ([each[at] for each in moved if each[at] is not None] for at in range(2))
    told = {
        "runs": runs, "weeks": weeks, "dealers": DEALERS, "series": SERIES, "windows": runs * weeks,
        "alarms": sum(each[0] for each in still), "promoted": sum(each[1] for each in still),
        "found": len(asked), "improved": len(improved),
        "weeks_to_alarm": asked, "weeks_to_promotion": improved,
    }  # fmt: skip
    Path(arguments[1]).write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
