"""What verify says: findings, each of one kind and about one thing in one store, and their report."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

__all__ = ["KINDS", "Finding", "Kind", "Report", "Store", "moment", "tile_name"]

Kind = Literal[
    "missing-row", "extra-row", "unreadable-row", "missing-field", "missing-tile", "extra-tile", "tile",
    "behind", "value", "time", "position", "clock", "missing-letter", "wrong-letter", "missing-event",
    "extra-event", "missing-record", "extra-record", "duplicate-record", "changed-record", "current",
    "missing-vector", "extra-vector", "vector", "leftover-vector", "champion", "score-version", "score-time",
    "duplicate-insight", "insight", "missing-node", "extra-node", "node", "missing-relation", "extra-relation",
    "relation", "learner",
]  # fmt: skip
Store = Literal["online", "lake", "index", "graph", "dead letters", "topic"]

KINDS: Mapping[Kind, str] = {
    "missing-row": "the log has events of an entity, and the store has no row of it",
    "extra-row": "the store has a row of an entity of which the log has no event",
    "unreadable-row": "a row's tiles cannot be decoded",
    "missing-field": "a row lacks its time or its version",
    "missing-tile": "events up to the common position are in no stored tile",
    "extra-tile": "a stored tile holds no event of the log, is out of retention, or is there twice",
    "tile": "a stored tile is not what the events up to its own positions give",
    "behind": "a stored tile's positions lie before the common position",
    "value": "a feature as it is read differs from the same window over the events",
    "time": "a row's time is not that of its newest tile: older event times overwrote newer ones",
    "position": "a store's recorded position cannot be right",
    "clock": "the event clock is not the latest event time",
    "missing-letter": "a rejected record is in no dead letter, or its bytes differ",
    "wrong-letter": "a dead letter is of a record that is fine",
    "missing-event": "an event came to no derived event and to no dead letter",
    "extra-event": "a derived event has no cause in the log",
    "missing-record": "a record of the topic has no row in the lake",
    "extra-record": "a row of the lake has no record in the topic",
    "duplicate-record": "a record has more than one row in the lake",
    "changed-record": "a row of the lake is not what the record says",
    "current": "a current table is not what the topic's table gives",
    "missing-vector": "a vector of the topic is not in the index, or one that is to be there not in the topic",
    "extra-vector": "a vector of the index is from no record of the topic, or a fused one of no parts",
    "vector": "a vector of the index is not what its newest record says, or a fused one not of its parts",
    "leftover-vector": "a vector of the topic is of a space of the graph that its node is not of any more",
    "champion": "a model has not exactly the one champion that its records give",
    "score-version": "a score is of a version that its decision did not put there, and is not marked shadow",
    "score-time": "a version scored more than a minute before or after its time",
    "duplicate-insight": "an insight was told more than once",
    "insight": "an insight is of no score, or of a shadow's",
    "missing-node": "a product or dealer of its topic is not in the graph",
    "extra-node": "a product or dealer of the graph has no record in its topic",
    "node": "a product or dealer of the graph is not what its newest record says",
    "learner": "what the online model of leads has learnt is not what the lessons of its log give",
    "missing-relation": "an order line, a sum of lines or a level of stock is not in the graph",
    "extra-relation": "an order line, a sum or a level of stock of the graph has no record, or is there twice",
    "relation": "an order line, a sum of lines or a level of stock of the graph is not what the records say",
}
_KEPT = 1_000


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the log says.

    `view` names the feature view, the topic or the table; `feature` the value, partial or field; `window` the
    tile or column it belongs to; `position` the source position up to which it was compared.
    """

    kind: Kind
    store: Store
    view: str
    entity: tuple[str, ...] = ()
    feature: str = ""
    window: str = ""
    expected: Any = None
    found: Any = None
    position: str = ""

    def line(self) -> str:
        """Return it as one line for people."""
        what = " ".join(part for part in (self.feature, self.window) if part)
        who = f" ({', '.join(self.entity)})" if self.entity else ""
        at = f" at {self.position}" if self.position else ""
        told = f"expected {self.expected}, found {self.found}{at}"
        return f"{self.kind}: {self.store} {self.view}{who} {what}: {told}"


@dataclass
class Report:
    """What was compared and what was found.

    `topics` counts what became of each record of a source: its outcomes add up to `records`. `looked_again` are
    rows that differed while records were on their way and were right a moment later. Of each kind and view the
    first 1,000 findings are kept; `counts` has them all.
    """

    at_ms: int = 0
    seconds: float = 0.0
    sampled: int | None = None
    entities: int = 0
    tiles: int = 0
    values: int = 0
    looked_again: int = 0
    topics: dict[str, dict[str, int]] = field(default_factory=dict)
    positions: dict[str, dict[str, int]] = field(default_factory=dict)
    lake: dict[str, dict[str, int]] = field(default_factory=dict)
    index: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    graph: dict[str, int] = field(default_factory=dict)
    hybrid: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings: counted all, kept as far as anyone will read."""
        kept = Counter((each.kind, each.view) for each in self.findings)
        for each in findings:
            self.counts[each.kind] = self.counts.get(each.kind, 0) + 1
            kept[each.kind, each.view] += 1
            if kept[each.kind, each.view] <= _KEPT:
                self.findings.append(each)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what the block takes to the timing of this name, s."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = round(self.timings.get(name, 0.0) + time.monotonic() - began, 3)

    def to_json(self) -> str:
        """Return it as one JSON object."""
        return json.dumps({"clean": self.clean, **asdict(self)}, default=_plain)


def moment(ms: int) -> str:
    """Return a time as people write it, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tile_name(grain_s: int, hop_ms: int) -> str:
    """Return a tile's place: its start and its length."""
    length = {60: "1m", 3_600: "1h", 86_400: "1d"}.get(grain_s, f"{grain_s}s")
    return f"{moment(hop_ms)}/{length}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.item() if hasattr(value, "item") else str(value)
