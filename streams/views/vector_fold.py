"""What the vector view knows of an owner, and how its events move that: a pure fold.

Of several records of one owner the newest event time counts, ties go to the later one; a tombstone forgets what
was there, whatever its time. The embed agent folds alike. Each guard is a position in the owner's partition,
so that what comes again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from connectors.vectors import Entry
from models.embedding import Owner, split
from models.search.fields import fields_of
from schemas.ids import event_id
from streams.views.guards import Guard

__all__ = ["OwnerState"]

Fields = dict[str, Any]


@dataclass(slots=True)
class OwnerState:
    """An owner: its newest record's fields, where its chunks stand in it, and what dealers have of it.

    `id` is that of the entry that keeps it. `time_ms` is None where there is no record; `mark` is of that
    record (`mark_of`), empty where it is not known. `stock` maps a dealer to [units on hand, event time ms,
    offset].
    """

    owner: Owner
    id: str
    time_ms: int | None = None
    offset: int = -1
    deleted: bool = False
    given: Fields = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)
    stock: dict[str, list[int]] = field(default_factory=dict)
    mark: str = ""

    @classmethod
    def of(cls, owner: Owner, identity: str, entry: Entry | None, guard: Guard | None = None) -> OwnerState:
        """Read a state back from its entry and what came after it; a new one where there is none."""
        state = cls(owner, identity, *([] if entry is None else orjson.loads(entry.fields["state"])))
        if guard is not None:
            state.again(*guard)
        return state

    @staticmethod
    def entry_id(owner: Owner) -> str:
        """Id of the entry that keeps an owner's state."""
        return event_id("owner", str(owner))

    def entry(self) -> Entry:
        """The entry that keeps this state: one text, and no field that searches look at."""
        kept = (self.time_ms, self.offset, self.deleted, self.given, self.places, self.stock, self.mark)
        state = orjson.dumps(kept).decode()
        return Entry(self.id, {"state": state})

    def record(self, topic_name: str, record: Mapping[str, Any] | None, offset: int, mark: str = "") -> bool:
        """Fold a record, or a tombstone (None); whether anything changed. Raises ContractError, NoTextError.

        `mark` is the record's; empty where that is not known.
        """
        if offset <= self.offset:
            return False
        if record is None:
            changed = self.time_ms is not None
            self.time_ms, self.offset, self.deleted, self.given, self.places = None, offset, False, {}, {}
            self.mark = ""
            return changed
        if self.time_ms is not None and record["event_time"] < self.time_ms:
            return False
        if not mark or mark != self.mark:
            chunks = split(topic_name, self.owner.id, record)
            self.places = {each.id: [each.number, each.start, each.end] for each in chunks}
            self.given, self.mark = fields_of(self.owner.type, record), mark
        self.time_ms, self.offset, self.deleted = record["event_time"], offset, record["deleted"]
        return True

    def again(self, time_ms: int, offset: int) -> bool:
        """Fold a record that says what the one that counts says; whether it counts now."""
        if offset <= self.offset or self.time_ms is None or time_ms < self.time_ms:
            return False
        self.time_ms, self.offset = time_ms, offset
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
        stock, stocked_by = self._levels()
        return {
            **_NONE.get(self.owner.type, {}),
            **self.given,
            "live": str(self._live()).lower(),
            "stock": stock,
            "stocked_by": stocked_by,
        }

    def shown(self) -> tuple[Any, ...]:
        """What `shared` and `place` follow from; a fold replaces what is in it, and changes none of it."""
        return self.given, self.places, self._live(), *self._levels()

    def _levels(self) -> tuple[int | None, list[str] | None]:
        """Units on hand at all dealers together, and the dealers with some; None where nothing is known."""
        if not self.stock:
            return None, None
        held = sorted(dealer for dealer, each in self.stock.items() if each[0] > 0)
        return sum(each[0] for each in self.stock.values()), held or None

    def _live(self) -> bool:
        if self.owner.type not in _NONE:
            return True  # nothing but its chunks tells of it
        return self.time_ms is not None and not self.deleted

    def place(self, chunk_id: str) -> Fields:
        """Where a chunk stands in the newest record; nothing for one that is not, or no longer, in it."""
        number, start, end = self.places.get(chunk_id, (None, None, None))
        return {"chunk": number, "start": start, "end": end}


_NONE: Mapping[str, Fields] = {kind: fields_of(kind, {}) for kind in ("product", "document")}
