"""What feedback says of hits: bounded weights of (search, hit), which no single caller can bend.

Evidence is a click, a thumb, a rating, an order after a search, or a correction, which speaks against the hit
and for another one. It decays in event time. One dealer's evidence about one hit never exceeds `PER_DEALER`,
whatever it calls itself, and that of one source never `PER_SOURCE`, for however many dealers it speaks; the
rest is shrunk: weight = 1 + bound · e / (|e| + 10).
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_64_intdigest

__all__ = ["PER_DEALER", "PER_SOURCE", "Arms", "Weights", "feedback_id", "picture_key", "search_key"]

PER_DEALER, PER_SOURCE = 1.0, 5.0
"""Most evidence about one hit of one search: of one dealer, and of one source."""

_HALFWAY = 10.0  # evidence that moves a weight half way to its bound
_PAIRS, _CALLERS = 50_000, 256
_CLICK, _ORDER = 0.25, 1.0


def search_key(terms: Iterable[int], like: str | None) -> str:
    """Return the name of what is searched for: the same for the same stems in any order, 16 digits."""
    text = f"{' '.join(map(str, sorted(set(terms))))}|{like or ''}"
    return f"{xxh3_64_intdigest(text.encode()):016x}"


def picture_key(image: str | None) -> str:
    """Return what names a picture in a search's key: the same for the same file; empty for none."""
    return "" if image is None else f"|image {xxh3_64_intdigest(image.encode()):016x}"


def feedback_id(key: str, owner: str) -> str:
    """Return what feedback about a hit names as its subject: the search, and the hit as type/id."""
    return f"{key}/{owner}"


@dataclass
class Arms:
    """Evidence in favour that came of searches with weights, and of those held out, which got none."""

    weighted: int = 0
    held_out: int = 0


@dataclass
class _Evidence:
    callers: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    at_ms: int = 0


class Weights:
    """Folds feedback, and tells weights. One thread folds, any may ask.

    Args:
        bound: a weight is at most so far from 1; 0 leaves every ranking as it is.
        half_life_days: event time in which evidence loses half of what it says.
        holdout: share of (dealer, search) that is ranked without, to measure the lift by.
    """

    def __init__(self, bound: float = 0.3, half_life_days: float = 30.0, holdout: float = 0.1) -> None:
        self._bound, self._half_life_ms, self._holdout = bound, half_life_days * 86_400_000, holdout
        self._pairs: dict[tuple[str, str], _Evidence] = {}
        self._lock = threading.Lock()
        self.now_ms = 0
        self.arms = Arms()

    def __len__(self) -> int:
        return len(self._pairs)

    def held_out(self, dealer_id: str | None, key: str) -> bool:
        """Whether a dealer's search is ranked without weights: the same answer at every time and place."""
        digest = xxh3_64_intdigest(f"holdout|{dealer_id or ''}|{key}".encode())
        return digest < self._holdout * 2**64

    def weight(self, key: str, owner: str) -> float:
        """Return the factor of a hit's score; 1 where nothing is known."""
        with self._lock:
            evidence = self._pairs.get((key, owner))
            if evidence is None:
                return 1.0
            total = self._total(evidence)
        return 1 + self._bound * total / (abs(total) + _HALFWAY)

    def fold(self, feedback: Mapping[str, Any]) -> bool:
        """Fold one record of the topic `feedback`; whether it says anything about a hit of a search."""
        key, _, owner = feedback["subject_id"].partition("/")
        if feedback["subject_type"] != "search" or len(key) != 16 or not all(owner.partition("/")):
            return False
        says = _evidence(feedback, owner)
        if not says:
            return False
        caller, at_ms = (feedback["dealer_id"], feedback["source"]), feedback["event_time"]
        with self._lock:
            self.now_ms = max(self.now_ms, at_ms)
            for hit, value in says:
                self._add(key, hit, caller, value, at_ms)
            if says[0][1] > 0:
                if self.held_out(feedback["dealer_id"], key):
                    self.arms.held_out += 1
                else:
                    self.arms.weighted += 1
        return True

    def lift(self) -> tuple[float, float, float] | None:
        """How much more evidence in favour the weighted searches get, as a share, with its 95 % interval.

        Chance alone deals searches to the two arms, so evenly good rankings share it as the holdout does. The
        interval is that of a ratio of two Poisson counts. None where an arm has none.
        """
        ours, theirs = self.arms.weighted, self.arms.held_out
        if not ours or not theirs:
            return None
        ratio = ours / theirs * self._holdout / (1 - self._holdout)
        spread = math.exp(1.96 * math.sqrt(1 / ours + 1 / theirs))
        return ratio - 1, ratio / spread - 1, ratio * spread - 1

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._pairs.clear()
            self.arms, self.now_ms = Arms(), 0

    def dump(self) -> dict[tuple[str, str], float]:
        """Return every weight."""
        return {pair: self.weight(*pair) for pair in sorted(self._pairs)}

    def _add(self, key: str, hit: str, caller: tuple[str, str], value: float, at_ms: int) -> None:
        evidence = self._pairs.pop((key, hit), None) or _Evidence()
        if len(self._pairs) >= _PAIRS:
            del self._pairs[next(iter(self._pairs))]  # the one that nothing was said of for longest
        self._pairs[key, hit] = evidence
        held, then_ms = evidence.callers.get(caller, (0.0, at_ms))
        newest = max(then_ms, at_ms)
        total = held * self._kept(newest - then_ms) + value * self._kept(newest - at_ms)
        evidence.callers[caller] = max(-PER_DEALER, min(PER_DEALER, total)), newest
        if len(evidence.callers) > _CALLERS:
            del evidence.callers[min(evidence.callers, key=lambda each: (*evidence.callers[each][::-1], each))]

    def _total(self, evidence: _Evidence) -> float:
        of_dealer: dict[str, float] = defaultdict(float)
        now: dict[tuple[str, str], float] = {}
        for caller, (held, then_ms) in evidence.callers.items():
            now[caller] = held * self._kept(self.now_ms - then_ms)
            of_dealer[caller[0]] += abs(now[caller])
        of_source: dict[str, float] = defaultdict(float)
        for (dealer, source), value in now.items():
            of_source[source] += value * min(1.0, PER_DEALER / of_dealer[dealer]) if value else 0.0
        return math.fsum(max(-PER_SOURCE, min(PER_SOURCE, each)) for each in of_source.values())

    def _kept(self, age_ms: int) -> float:
        return float(2 ** -(age_ms / self._half_life_ms))


def _evidence(feedback: Mapping[str, Any], owner: str) -> list[tuple[str, float]]:
    """What a feedback says, of which hits."""
    kind, value = feedback["kind"], feedback["value"]
    if kind == "click":
        return [(owner, _CLICK)]
    if kind == "outcome":
        return [(owner, _ORDER)] if value > 0 else []
    if kind == "thumb":
        return [(owner, max(-1.0, min(1.0, value)))] if value else []
    if kind == "rating":
        return [(owner, max(-1.0, min(1.0, (value - 3) / 2)))] if value != 3 else []
    right = (feedback["comment"] or "").strip()
    found = [(owner, -1.0)]
    return [*found, (right, 1.0)] if all(right.partition("/")) and right != owner else found
