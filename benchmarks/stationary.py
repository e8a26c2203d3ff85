"""Monitors and canaries on simulated streams: how often chance asks or decides, how soon a change is found."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome, middle
from dealeriq.training import interpreter

__all__ = ["measure"]

_HOW = """Simulated streams through the real monitors and the real sequential comparison: {dealers} dealers
of unlike size, {series} correlated and skewed inputs, a calibrated probability with its outcomes, eight weeks
as the reference.

- *Stationary*: {runs} streams of {weeks} weeks, at the default settings. Each week every monitor judges, and
  a version that is no better than the champion is compared with it as a canary; a decision at any look counts.
- *Shared shocks*: as many streams again for each size of shock, which all dealers of a week share (as a part
of the spread among dealers), one false alarm in twenty weeks asked for, and no PSI too small to be one. The
intervals are bootstrapped over streams: what eight weeks have told of shocks is one stream's luck.
- *Changed*: {runs} streams in which a quarter of the outcomes cease to follow the inputs from the fifth week
  on, and a version that knows the new world. Weeks are of event time, from the change to the alarm and from
  the canary's begin to its promotion; training itself is measured by `./run bench models`."""


_WHY_SHOCKS = "Eight weeks of a reference tell roughly how weeks differ by themselves."


def measure(short: bool = False, runs: str = "") -> Outcome:
    """Simulate in the training environment."""
    count = int(runs or (4 if short else 20))
    with tempfile.TemporaryDirectory(prefix="dealeriq-loop-") as name:
        job, out = Path(name) / "job.json", Path(name) / "out.json"
        job.write_text(json.dumps({"runs": count, "weeks": 8 if short else 26}))
        command = [
            interpreter(lambda line: print(line, file=sys.stderr)),
            "-m", "benchmarks.peers.stationary", str(job), str(out),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.loads(out.read_text())
    alarms = round(100 * found["alarms"] / found["windows"], 2)
    of = "of streams"
    return Outcome(
        how=_HOW.format(**found),
        claims=[
            Claim("stationary: promoted by chance", found["promoted"], of, 0, at_most=True),
            Claim("stationary: weeks with any alarm", alarms, "%", 1.0, at_most=True),
            *(
                Claim(
                    f"weeks with any alarm, asked 5 %, shared shocks of {shock}",
                    round(100 * mean, 1),
                    "%",
                    5.0,
                    at_most=True,
                    spread=(round(100 * low, 1), round(100 * high, 1)),
                    why=_WHY_SHOCKS,
                )
                for shock, (mean, low, high) in found["shared_shocks"].items()
            ),
            Claim("changed: with an alarm", found["found"], of, count),
            Claim("changed: the better version promoted", found["improved"], of, count),
        ],
        table=[
            {"weeks": what, "median": middle(some), "longest": max(some)}
            for what, some in (
                ("from the change to the alarm", found["weeks_to_alarm"]),
                ("from the canary's begin to its promotion", found["weeks_to_promotion"]),
            )
            if some
        ],
        figures=found,
    )
