"""What a benchmark is: a module with `measure`, one line in `benchmarks.catalogue`, and an `Outcome`.

    def measure(short: bool = False) -> Outcome:

`short` asks for the same in seconds, to show that it runs; its figures mean nothing. More keyword arguments,
all with defaults, are options: `./run bench NAME -o orders=100000` hands them over as text.

A whole run leaves `benchmarks/results/NAME.json`:

    {"benchmark": …, "at": "2026-11-25", "seconds": …, "short": false, "machine": {…},
     "how": …, "claims": [{…, "met": true}], "table": [{…}], "figures": {…}}

and `./run bench report` writes docs/benchmarks.md from all of these.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Benchmark", "Claim", "Outcome", "middle", "ratio"]


@dataclass(frozen=True)
class Benchmark:
    """One line of the catalogue.

    Args:
        name: as in `./run bench NAME`.
        about: one line of what it measures.
        module: where `measure` is; imported only when it runs.
    """

    name: str
    about: str
    module: str


@dataclass(frozen=True)
class Claim:
    """One number with the aim it is held against.

    Args:
        what: what was measured, in words, such as "reads beside `feast serve`".
        value: the measured value, in `unit` (a ratio has the unit "×").
        aim: what it should reach, or stay under where `at_most` is true.
        spread: the lowest and the highest of the repeats.
        why: what holds it back; shown where the aim is missed. An honest sentence, not an excuse.
    """

    what: str
    value: float
    unit: str
    aim: float
    at_most: bool = False
    spread: tuple[float, float] | None = None
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the value reaches its aim."""
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    def to_json(self) -> dict[str, Any]:
        """The claim as it stands in the results."""
        return asdict(self) | {"met": self.met}


@dataclass(frozen=True)
class Outcome:
    """What one run saw.

    Args:
        how: how it was measured, a few plain sentences; Markdown.
        claims: numbers with aims.
        table: rows with the same keys, in the order to show; Markdown in cells is kept.
        figures: whatever else is worth keeping; JSON.
    """

    how: str
    claims: Sequence[Claim] = ()
    table: Sequence[dict[str, Any]] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def middle(values: Sequence[float]) -> float:
    """The median, to four significant digits."""
    return float(f"{statistics.median(values):.4g}")


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The median ratio of paired runs, and its spread: each of ours beside the one of theirs that followed."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=True)]
    return middle(pairs), (middle([min(pairs)]), middle([max(pairs)]))
