"""Guards beside the entries that they belong to: how a record that changes nothing but its time is remembered.

To write an owner's entry anew for the sake of its record's time costs an index more than all else that is done
with such a record, and a catalogue that is sent again is made of them. So their times and offsets go, a whole
batch at once, into one entry: a segment of a log. When segments are many, the smallest become one, and are
deleted after that is written. What counts of an owner is the greatest offset, so segments may be read in any
order, and a crash between two of these steps leaves some things twice and loses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from connectors.vectors import Entry, VectorIndex
from schemas.ids import event_id

__all__ = ["Guard", "Guards"]

Guard = tuple[int, int]
"""Event time, ms, and offset of the record of an owner that counts."""

_PLACES = tuple(event_id("vector-view", "guards", number) for number in range(256))
_MOST = 32  # segments, before some of them become one; there are places left for what a crash leaves twice
_TOGETHER = 24  # that become one: each guard is written anew as often as the log of their number to this base


class Guards:
    """The guards that an index keeps, and in memory; it is asked for them once. Errors are the index's own."""

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self._kept: dict[str, tuple[Guard, str]] | None = None  # and the place of the segment that holds it
        self._sizes: dict[str, int] = {}  # of the segments, by their places

    def __len__(self) -> int:
        return len(self._read())

    def of(self, owner: str) -> Guard | None:
        """Return an owner's guard; None where its entry says all."""
        found = self._read().get(owner)
        return None if found is None else found[0]

    def put(self, guards: Mapping[str, Guard]) -> None:
        """Store the guards of some owners; what was stored is known only then."""
        if not guards:
            return
        kept = self._read()
        if len(self._sizes) >= _MOST:
            self._merge(kept)
        self._write(kept, guards)

    def forget(self, owners: Iterable[str]) -> None:
        """Leave the guards of owners out from now on: their entries say as much."""
        kept = self._read()
        for owner in owners:
            kept.pop(owner, None)

    def _read(self) -> dict[str, tuple[Guard, str]]:
        if self._kept is None:
            kept: dict[str, tuple[Guard, str]] = {}
            for place, entry in self._index.get(_PLACES).items():
                found = orjson.loads(entry.fields["state"])
                self._sizes[place] = len(found)
                for owner, (time_ms, offset) in found.items():
                    if owner not in kept or offset > kept[owner][0][1]:
                        kept[owner] = (time_ms, offset), place
            self._kept = kept
        return self._kept

    def _merge(self, kept: dict[str, tuple[Guard, str]]) -> None:
        """Make one of the smallest segments; what another holds, or an entry, is left out."""
        some = sorted(self._sizes, key=lambda each: self._sizes[each])[:_TOGETHER]
        among = frozenset(some)
        self._write(kept, {owner: guard for owner, (guard, place) in kept.items() if place in among})
        self._index.delete(some)
        for place in some:
            del self._sizes[place]

    def _write(self, kept: dict[str, tuple[Guard, str]], guards: Mapping[str, Guard]) -> None:
        place = next(each for each in _PLACES if each not in self._sizes)
        self._index.put([Entry(place, {"state": orjson.dumps(guards).decode()})])
        self._sizes[place] = len(guards)
        kept.update((owner, (guard, place)) for owner, guard in guards.items())
