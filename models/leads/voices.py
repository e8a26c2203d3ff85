"""Who said what became of leads, so that none decides alone: how much one more label of a source weighs.

A source counts for no more than a third of what is learnt, once there are three that have said something. What
was learnt before counts less and less, as it does in the model itself, whose memory is some thirty labels. Only
what is learnt makes the rest older: a source that floods the stream moves the model by a dozen steps, and then
no further until others have spoken.

Of one source the same about the same lead counts once, and a change of mind twice at most; sources that
contradict each other are both learnt from, and the model comes to rest between them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

__all__ = ["Said", "Voices"]

MOST = 1 / 3
KEEP = 0.97  # of what a source has said, after one label more
ESTABLISHED = 3.0  # labels until a source is one of three
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

    def weigh(self, source: str, outcome: float, before: Said | None) -> tuple[float, Said]:
        """Return what a label weighs (0 to 1), and what to remember of it; it counts from now on.

        `before` is what the source said of the same lead.
        """
        if before is not None and (before.outcome == outcome or before.counted > 1):
            return 0.0, Said(outcome, before.counted)
        weight = self._left(source)
        aged = 1 - (1 - KEEP) * weight
        self.taken = {name: had for name, each in self.taken.items() if (had := each * aged) > GONE}
        if weight > 0:
            self.taken[source] = self.taken.get(source, 0.0) + weight
        return weight, Said(outcome, 1 if before is None else before.counted + 1)

    def _left(self, source: str) -> float:
        mine = self.taken.get(source, 0.0)
        established = sum(each >= ESTABLISHED for name, each in self.taken.items() if name != source)
        if established < 2 or mine < ESTABLISHED:
            return 1.0
        others = math.fsum(self.taken.values()) - mine  # whatever their order
        return min(1.0, max(0.0, others * MOST / (1 - MOST) - mine))

    def dump(self) -> str:
        """Return the state as JSON: the same state, the same text."""
        return json.dumps(self.taken, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Voices:
        """Return the voices of a state."""
        return cls({str(name): float(value) for name, value in json.loads(text).items()})
