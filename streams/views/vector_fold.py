"""What the vector view knows of an owner, and how its events move that: a pure fold.

Of several records of one owner the newest event time counts, ties go to the later one; a tombstone forgets what
was there, whatever its time. The embed agent folds alike. Each guard is a position in the owner's partition,
so that what comes again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.vectors import Entry
from models.embedding import Owner, split
from models.search.fields import OWNER, fields_of
from schemas.ids import event_id

__all__ = ["OwnerState"]

Fields = dict[str, Any]


@dataclass(slots=True)
class OwnerState:
    """An owner: its newest record's fields, where its chunks stand in it, and what dealers have of it.

    `time_ms` is None where there is no record. `stock` maps a dealer to [units on hand, event time ms, offset].
    """

    owner: Owner
    time_ms: int | None = None
    offset: int = -1
    deleted: bool = False
    given: Fields = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)
    stock: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, owner: Owner, entry: Entry | None) -> OwnerState:
        """Read a state back from its entry; a new one where there is none."""
        if entry is None:
            return cls(owner)
        kept = entry.fields
        return cls(
            owner,
            kept.get("time_ms"),
            kept["offset"],
            kept["deleted"],
            kept["given"],
            kept["places"],
            kept["on_hand"],
        )

    @staticmethod
    def entry_id(owner: Owner) -> str:
        """Id of the entry that keeps an owner's state."""
        return event_id("owner", str(owner))

    def entry(self) -> Entry:
        """The entry that keeps this state."""
        kept: Fields = {
            "entry": OWNER, "owner": str(self.owner), "time_ms": self.time_ms, "offset": self.offset,
            "deleted": self.deleted, "given": self.given, "places": self.places, "on_hand": self.stock,
        }  # fmt: skip
        return Entry(self.entry_id(self.owner), kept)

    def record(self, topic_name: str, record: Mapping[str, Any] | None, offset: int) -> bool:
        """Fold a record, or a tombstone (None); whether anything changed. Raises ContractError, NoTextError."""
        if offset <= self.offset:
            return False
        if record is None:
            changed = self.time_ms is not None
            self.time_ms, self.offset, self.deleted, self.given, self.places = None, offset, False, {}, {}
            return changed
        if self.time_ms is not None and record["event_time"] < self.time_ms:
            return False
        chunks = split(topic_name, self.owner.id, record)
        self.time_ms, self.offset, self.deleted = record["event_time"], offset, record["deleted"]
        self.given = fields_of(self.owner.type, record)
        self.places = {each.id: [each.number, each.start, each.end] for each in chunks}
        return True

    def level(self, dealer_id: str, on_hand: int, time_ms: int, offset: int) -> bool:
        """Fold what a dealer has on hand; the newest event time counts, ties go to the later one."""
        known = self.stock.get(dealer_id)
        if known is not None and (time_ms, offset) <= (known[1], known[2]):
            return False
        self.stock[dealer_id] = [on_hand, time_ms, offset]
        return True  # also where the units are the same: their time must be kept

    def shared(self) -> Fields:
        """The fields that every chunk of the owner has; `live` is whether it may be found."""
        return {
            **_NONE.get(self.owner.type, {}),
            **self.given,
            "live": str(self._live()).lower(),
            "stock": sum(each[0] for each in self.stock.values()) if self.stock else None,
            "stocked_by": sorted(dealer for dealer, each in self.stock.items() if each[0] > 0) or None,
        }

    def _live(self) -> bool:
        if self.owner.type not in _NONE:
            return True  # nothing but its chunks tells of it
        return self.time_ms is not None and not self.deleted

    def place(self, chunk_id: str) -> Fields:
        """Where a chunk stands in the newest record; nothing for one that is not, or no longer, in it."""
        number, start, end = self.places.get(chunk_id, (None, None, None))
        return {"chunk": number, "start": start, "end": end}


_NONE: Mapping[str, Fields] = {kind: fields_of(kind, {}) for kind in ("product", "document")}
