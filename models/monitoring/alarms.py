"""From observations to wishes: which alarms ask for a training, and what of a model is still to be judged.

Both are folds of `model.monitors`, so whoever reads it comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from models.lifecycle import ModelState
from models.monitoring.observation import Observation

__all__ = ["Alarm", "Watched", "alarms", "watched"]


@dataclass(frozen=True)
class Watched:
    """A version to look at. `done` is the end of the last window that each monitor judged, `first_ms` the begin
    of the first; of a canary only what was judged since the decision counts.
    """

    model: str
    version: str
    artifact: str
    role: str
    decided_at: int = -1
    first_ms: int | None = None
    done: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Alarm:
    """Why a model should be trained again: the monitors that spoke of one window, as one."""

    model: str
    window_end: int
    text: str
    cause: str
    evidence: dict[str, float]


def alarms(seen: Iterable[Observation], cool_down_ms: int) -> list[Alarm]:
    """Return the alarms that ask, in order: those of a window together, none within `cool_down_ms` of the last.

    Times are event time, the ends of windows.
    """
    by_window: dict[tuple[str, int], list[Observation]] = {}
    for each in seen:
        if each.alarm:
            by_window.setdefault((each.model, each.window_end), []).append(each)
    found: list[Alarm] = []
    last: dict[str, int] = {}
    for (model, end), some in sorted(by_window.items(), key=lambda pair: (pair[0][1], pair[0][0])):
        if model in last and end - last[model] < max(cool_down_ms, 1):
            continue
        last[model] = end
        text = "; ".join(f"{each.monitor}: {each.text}" for each in some)
        evidence = {each.monitor: each.value for each in some if each.value is not None}
        found.append(Alarm(model, end, text[:4_000], some[0].event_id, evidence))
    return found


def watched(state: ModelState, seen: Iterable[Observation]) -> list[Watched]:
    """Return what is to be judged of a model: its champion and challenger, and how far each was."""
    mine = [each for each in seen if each.model == state.name]
    found = []
    for role, version in (("champion", state.champion), ("challenger", state.challenger)):
        if version is None:
            continue
        told = [each for each in mine if each.model_version == version]
        at = state.versions[version].at
        first = min((each.window_start for each in told if each.monitor != "canary"), default=None)
        done: dict[str, int] = {}
        for each in told:
            if each.monitor != "canary" or each.decided_at == at:
                done[each.monitor] = max(done.get(each.monitor, 0), each.window_end)
        found.append(Watched(state.name, version, state.versions[version].artifact, role, at, first, done))
    return found
