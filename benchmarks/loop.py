"""The loop on the real system: from an injected change to a promoted version whose error is lower, and back."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome, middle
from dealeriq.demo.looking import Happened
from dealeriq.demo.loop import PAST, LoopStory, Story, prepare
from dealeriq.demo.summary import loop_summary
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System
from dealeriq.verifier import verifier

__all__ = ["measure"]

_HOW = """The whole system runs (Kafka, Flink, every process, MLflow on SQLite), as `dealeriq demo --loop`
runs it. {dealers} dealers of the carried year order, {orders:,} lines in all. After {first} weeks a first
`demand_forecast` is asked for; from week {change} on the dealers order every other week, twice as much,
until week {last}. Everything behind that is the system's own: windows, alarms, requests, trainings, gates,
canaries, promotions. Orders come a day at a time, each when the last is scored, and after {stretch} weeks
the next when the system is at rest: what happens is told in event time and does not hang on the machine;
seconds are the machine's. Default settings, but that an alarm asks again after four weeks, that a window is
judged from ten dealers on, and that nothing waits for the wall clock. *Error* is the weighted quantile
loss, measured on outcomes, of each promoted version beside the one it followed, in the windows that both
scored. At the end a person trains on the first {past} weeks alone, which the gates have to refuse, and rolls
back: the version that serves again is asked for the recorded inputs of every score that it gave before, and
its new scores are held against those of the same events and inputs, every output as float bits; then
`verify` compares every store with the log."""
_WHY_SHORT = (
    "In the short form orders come eight weeks at a time: there are few trainings, and few comparisons."
)


def measure(short: bool = False, dealers: str = "", last: str = "", stretch: str = "") -> Outcome:
    """Play the story; `short` plays half of the dealers, eight weeks at a time."""
    usual = Story()
    story = Story(
        dealers=int(dealers or (24 if short else usual.dealers)), last=int(last or (44 if short else 52)),
        stretch=int(stretch or (8 if short else usual.stretch)),
    )  # fmt: skip
    settings = load(running=False)
    prepare(settings)
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        system = System(supervisor, clock="event")
        system.start()
        found = loop_summary(LoopStory(system, story, _tell, _say).run())
        report = verifier(supervisor.settings, progress=_say).run()
    found["verify"] = report.counts
    how = _HOW.format(**vars(story), past=story.first - PAST, orders=found["orders"])
    return Outcome(how, _claims(found, report.clean), _table(found), found)


def _claims(found: dict[str, Any], clean: bool) -> list[Claim]:
    back = found["rolled_back"]
    claims = [
        Claim("alarms before the change", found["alarms_before"], "", 0, at_most=True),
        Claim("from the change to the alarm", found["days_to_alarm"] or 999.0, "days", 14, at_most=True),
        Claim("trainings without a hand", found["trainings"] - 1, "", 1),
        Claim("versions that were refused", found["refused"], "", 1, why=_WHY_SHORT),
        Claim("versions promoted without a hand", found["promoted"], "", 1, why=_WHY_SHORT),
        Claim("what verify found", sum(found["verify"].values()) + (not clean), "", 0, at_most=True),
    ]
    falls = [round(100 * (1 - each["error"] / each["error_before"]), 1) for each in found["falls"]]
    if falls:
        spread = (min(falls), max(falls))
        claims.append(
            Claim("error below the champion's before, at the least", min(falls), "%", 0, spread=spread)
        )
    if back:
        claims.append(
            Claim(
                "scores after the rollback as before it", 100 * back["same"] / max(back["known"], 1), "%", 100
            )
        )
    return claims


def _table(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"from … to": what, "times": len(some), "median, s": middle(some), "longest, s": max(some)}
        for what, some in found["seconds"].items()
    ]


def _tell(step: Happened) -> None:
    _say(f"{step.at_s:7.1f} s {step.what}: {step.text}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
