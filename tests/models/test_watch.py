"""Windows judged from a lake: by hand, a change, and a version that cannot be watched."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.monitoring.alarms import Watched
from models.monitoring.observation import Observation
from models.monitoring.watch import watch
from models.runtime import Session
from models.settings import MonitorSettings
from models.specs import spec
from models.training.events import Stream
from tests.models.serving import score, serve
from tests.models.year import DAY, START, write_year

MODEL = "churn"
TRAINED, CHANGED, DAYS = 203, 231, 252


class Served:
    """A version on a lake whose stream is steady, but for a change."""

    def __init__(self, root: Path) -> None:
        self.lake = root / "lake"
        write_year(self.lake, days=DAYS, steady=True, busier=(CHANGED, 4.0))
        self.session: Session = serve(MODEL, self.lake, root / "models", START + TRAINED * DAY)
        self.version = self.session.version
        score(self.session, self.lake, START + TRAINED * DAY, START + DAYS * DAY)

    def watch(self, **more: Any) -> tuple[list[Observation], list[str]]:
        one = Watched(MODEL, self.version, str(self.session.folder), "champion", 1, **more)
        settings = MonitorSettings(settle_s=0.0)
        found = watch(
            {"lake": str(self.lake), "lake_options": {}, "settings": settings.model_dump(), "confidence": 0.95,
             "watched": [asdict(one)]}
        )  # fmt: skip
        return [Observation(**each) for each in found["observations"]], found["problems"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("watch"))


@pytest.fixture(scope="module")
def seen(served: Served) -> list[Observation]:
    found, problems = served.watch()
    assert problems == []
    return found


def test_a_change_is_seen_when_its_window_closes_and_nothing_before(seen: list[Observation]) -> None:
    drift = [each for each in seen if each.monitor in ("inputs", "outputs", "estimated")]
    judged = [each for each in drift if each.value is not None]
    assert len({each.window_start for each in judged}) >= 5
    before = [each for each in judged if each.window_end <= START + CHANGED * DAY]
    assert before
    assert not [each for each in before if each.alarm]
    after = [each for each in judged if each.window_start >= START + CHANGED * DAY]
    assert all(each.alarm for each in after if each.monitor == "inputs")
    worst = max(after[0].details, key=lambda name: after[0].details[name])
    assert worst.startswith(("count", "log_count", "amount", "log_amount")), after[0].text


def test_a_window_is_judged_once(served: Served, seen: list[Observation]) -> None:
    done: dict[str, int] = {}
    for each in seen:
        done[each.monitor] = max(done.get(each.monitor, 0), each.window_end)
    first = min(each.window_start for each in seen)
    assert served.watch(first_ms=first, done=done)[0] == []
    # What was not judged yet is judged as it would have been at once.
    last = max(done["inputs"], 0) - 7 * DAY
    again, _ = served.watch(first_ms=first, done=done | {"inputs": last})
    assert [each for each in again if each.monitor == "inputs"] == [
        each for each in seen if each.monitor == "inputs" and each.window_end > last
    ]


def test_measured_performance_is_that_of_the_outcomes(served: Served, seen: list[Observation]) -> None:
    """Beside a plain recount from the lake's orders and scores."""
    measured = [each for each in seen if each.monitor == "measured" and each.value is not None]
    assert measured
    with Stream(served.lake) as stream:
        orders = stream.events("orders", ["dealer_id"]).to_pylist()
        scores = stream.events("scores", ["subject_id", "score"]).to_pylist()
    for each in measured:
        inside = [s for s in scores if each.window_start <= s["event_time"] < each.window_end]
        subjects = {s["subject_id"] for s in inside}
        assert each.rows == len(subjects)  # each counts once
        worst, best = 0.0, 0.0
        for subject in subjects:
            losses = []
            for s in (s for s in inside if s["subject_id"] == subject):
                until = s["event_time"] + spec(MODEL).label.horizon_ms
                silent = not any(
                    o["dealer_id"] == subject and s["event_time"] < o["event_time"] <= until for o in orders
                )
                losses.append(-np.log(s["score"] if silent else 1 - s["score"]))
            worst, best = worst + max(losses), best + min(losses)
        # Which of a subject's scores counts is the sample's choice; it lies between its best and its worst.
        assert best / len(subjects) - 1e-6 <= each.value <= worst / len(subjects) + 1e-6


def test_a_version_without_a_reference_is_told_and_the_others_are_watched(served: Served) -> None:
    file = served.session.folder / "reference.npz"
    held = file.read_bytes()
    try:
        file.write_bytes(held[:1_000])
        found, problems = served.watch()
    finally:
        file.write_bytes(held)
    assert found == []
    assert len(problems) == 1
    assert "drift of this version is not told" in problems[0]
