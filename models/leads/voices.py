"""Who said what became of leads, so that none decides alone: how much one more label of a source weighs.

A source counts for no more than a third of what is learnt (half, of three sources), once there are three that
have said something lately. What was learnt before counts less and less, as it does in the model itself, whose
memory is some thirty labels. Only what is learnt and time make the rest older, not what is said: a source that
floods the stream moves the model by a dozen steps, and then no further until others have spoken, or for a month
or two have not.

Of one source the same about the same lead counts once, and a change of mind twice at most; sources that
contradict each other are both learnt from, and the model comes to rest between them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

__all__ = ["Said", "Voices"]

MOST = 1 / 3
SLACK = 1.5  # of few sources each may have so many times its equal share: they never speak in turns
KEEP = 0.97  # of what a source has said, after one label more
ESTABLISHED = 3.0  # labels until a source is one of three
HALF_MS = 30 * 86_400_000  # event time in which what a source has said loses half its weight
GONE = 0.01  # what is left of a source that is forgotten


@dataclass(frozen=True)
class Said:
    """What a source last said of a lead, and how often its word has counted."""

    outcome: float
    counted: int = 1

    def dump(self) -> str:
        """Return it as text."""
        return f"{self.outcome:g} {self.counted}"

    @classmethod
    def load(cls, text: str) -> Said:
        """Return what `dump` wrote."""
        outcome, _, counted = text.partition(" ")
        return cls(float(outcome), int(counted))


@dataclass
class Voices:
    """How much of what was learnt lately each source has said."""

    taken: dict[str, float] = field(default_factory=dict)
    at_ms: int = 0

    def weigh(self, source: str, outcome: float, before: Said | None, time_ms: int) -> tuple[float, Said]:
        """Return what a label weighs (0 to 1), and what to remember of it; it counts from now on.

        `before` is what the source said of the same lead, `time_ms` the label's event time.
        """
        if time_ms > self.at_ms:
            self._age(0.5 ** ((time_ms - self.at_ms) / HALF_MS))
            self.at_ms = time_ms
        if before is not None and (before.outcome == outcome or before.counted > 1):
            return 0.0, Said(outcome, before.counted)
        weight = self._left(source)
        self._age(1 - (1 - KEEP) * weight)
        if weight > 0:
            self.taken[source] = self.taken.get(source, 0.0) + weight
        return weight, Said(outcome, 1 if before is None else before.counted + 1)

    def _left(self, source: str) -> float:
        mine = self.taken.get(source, 0.0)
        established = sum(each >= ESTABLISHED for name, each in self.taken.items() if name != source)
        if established < 2 or mine < ESTABLISHED:
            return 1.0
        most = max(MOST, SLACK / (established + 1))
        others = math.fsum(self.taken.values()) - mine  # whatever their order
        return min(1.0, max(0.0, others * most / (1 - most) - mine))

    def _age(self, by: float) -> None:
        self.taken = {name: had for name, each in self.taken.items() if (had := each * by) > GONE}

    def dump(self) -> str:
        """Return the state as JSON: the same state, the same text."""
        return json.dumps({"taken": self.taken, "at_ms": self.at_ms}, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Voices:
        """Return the voices of a state."""
        given = json.loads(text)
        return cls({str(name): float(value) for name, value in given["taken"].items()}, int(given["at_ms"]))
