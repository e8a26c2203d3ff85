"""The errors of a model that learns as it goes, from what it learnt: its answer stands beside each outcome.

There is no holdout to hold them against: the model of the holdout is not that of today. What is asked is
whether they rise within the stream, by River's ADWIN on the absolute error: a model that keeps up with its
world has the same errors before and after.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.artifact import load
from models.monitoring.alarms import Watched
from models.monitoring.errors import rises
from models.monitoring.observation import Observation
from models.settings import MonitorSettings
from models.training.events import Stream

__all__ = ["judge_lessons"]

_GRACE_MS = 3_600_000  # a lesson may come this much later, in event time, than others of its window
_DAY_MS = 86_400_000


def judge_lessons(
    stream: Stream, settings: MonitorSettings, watched: Watched, topic: str, delta: float
) -> list[Observation]:
    """Return the windows that closed since the last judged one; `delta` bounds false alarms.

    Lessons are judged from the first whole window after the version was trained. Raises LakeError.
    """
    window = max(1, round(settings.window_days * _DAY_MS))
    first = watched.first_ms
    if first is None:
        first = (load(Path(watched.artifact))[0].as_of_ms // window + 1) * window
    lessons = stream.events(topic, ["event_id", "dealer_id", "outcome", "answer"], f"event_time >= {first}")
    time = lessons["event_time"].to_numpy()
    closed = (int(time.max()) - _GRACE_MS) // window * window if len(time) else first
    error = np.abs(lessons["outcome"].to_numpy() - lessons["answer"].to_numpy())
    number = (time - first) // window
    rose = {int(number[place]) for place in rises(error[time < closed].tolist(), delta)}
    dealers, ids = (np.array(lessons[name].to_pylist(), object) for name in ("dealer_id", "event_id"))
    found = []
    begin = max(first, watched.done.get("errors", 0))
    while begin + window <= closed:
        at = number == (begin - first) // window
        many, value = len(set(dealers[at])), float(error[at].mean()) if at.any() else None
        alarm = (begin - first) // window in rose
        text = f"{'errors rose' if alarm else 'no change in the errors'}"
        if many < settings.least_dealers and not alarm:
            text, value = f"not judged: lessons of {many} dealers, of {settings.least_dealers} needed", None
        elif value is not None:
            text = f"{text}: mean absolute error {value:.3f}"
        cause = str(ids[at][-1]) if at.any() else watched.version
        found.append(
            Observation(
                watched.model, watched.version, watched.role, watched.decided_at, "errors", begin,
                begin + window, int(at.sum()), value, None, alarm, text, {}, cause,
            )
        )  # fmt: skip
        begin += window
    return found
