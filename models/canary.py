"""Canaries: whose scores count for whom, and when a canary is promoted, withdrawn, or a champion rolled back.

A canary is a challenger with a share of the subjects. Both versions score every subject, so they are compared
on all the traffic and not on the share alone. After a promotion the old champion goes on in shadow: the same
comparison tells when the new one is worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from models.lifecycle import ModelState
from models.monitoring.observation import Observation
from models.settings import CanarySettings

__all__ = ["Step", "in_share", "next_step"]

_DAY_MS = 86_400_000
_OWN = ("gates", "canary")  # promotions that the loop decided: a person's stands


def in_share(model: str, subject: str, share: float) -> bool:
    """Return whether a subject is among the share; the same one always, and of a larger share, too."""
    return xxh3_64_intdigest(f"{model}/{subject}".encode()) < share * 2**64


@dataclass(frozen=True)
class Step:
    """What is to be written to the lifecycle; `cause` identifies it."""

    version: str
    stage: str
    reason: str
    text: str
    cause: str


def next_step(state: ModelState, seen: Iterable[Observation], settings: CanarySettings) -> Step | None:
    """Return the step that the newest comparison asks for; None where there is none."""
    champion, challenger = state.champion, state.challenger
    if champion is None:
        return None
    last = state.former[-1] if state.former else None
    if challenger is None:
        held = state.versions[champion]
        if last is None or held.reason not in _OWN or state.versions[last].at > held.at:
            return None  # nothing to go back to, a person's decision, or watched enough
        text = f"goes on in shadow beside {champion}, to go back to where that is worse"
        return Step(last, "challenger", "canary", text, f"watch {champion} {held.at}")
    at = state.versions[challenger].at
    told = [
        each for each in seen
        if (each.model, each.monitor, each.model_version, each.decided_at)
        == (state.name, "canary", challenger, at)
    ]  # fmt: skip
    if not told:
        return None
    newest = max(told, key=lambda each: each.window_end)
    days = (newest.window_end - min(each.window_start for each in told)) / _DAY_MS
    low, high = newest.details.get("low", float("-inf")), newest.details.get("high", float("inf"))
    enough = newest.details.get("pairs", 0.0) >= settings.least_pairs
    live, cause = f"on live traffic: {newest.text}", newest.event_id
    if state.share > 0:
        if enough and low > 0:
            return Step(challenger, "champion", "canary", f"better {live}", cause)
        if enough and high < 0:
            return Step(challenger, "rejected", "canary", f"worse {live}", cause)
        if days >= settings.most_days:
            text = f"not shown to be better in {days:.0f} days: {newest.text}"
            return Step(challenger, "rejected", "canary", text, cause)
    elif challenger == last:
        if enough and low > settings.margin:
            return Step(challenger, "champion", "rollback", f"{champion} is worse {live}", cause)
        if days >= settings.most_days:
            return Step(challenger, "retired", "canary", f"{champion} has held for {days:.0f} days", cause)
    return None
