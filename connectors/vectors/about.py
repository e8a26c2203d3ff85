"""What an index says of itself: one entry with its format, its kinds of vectors, and its position."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from connectors.vectors.errors import WrongFormatError
from connectors.vectors.index import FORMAT, Encoding, EntryId, Fields, Kinds, Position
from schemas.ids import event_id

__all__ = ["SPARSE", "About", "said", "uuid_of"]

SPARSE = "words"
"""Name of the sparse vectors in a Qdrant index; the dense ones are named by their kinds."""


def uuid_of(identity: EntryId) -> str:
    """Return an entry's id as Qdrant has it."""
    return f"{identity[:8]}-{identity[8:12]}-{identity[12:16]}-{identity[16:20]}-{identity[20:]}"


def said(fields: Fields) -> Fields:
    """Return the fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


class About:
    """The entry as it is kept in the index; `fields` are to be written when they have changed."""

    id = uuid_of(event_id("index", "about"))

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        named = {name: asdict(each) for name, each in kinds.items()}
        self.fields: dict[str, Any] = {"format": FORMAT, "kinds": named, "positions": {}}

    def read(self, found: Fields | None, where: str) -> None:
        """Take over what was found in an index. Raises WrongFormatError where it is not what this one wants."""
        found = found or {}
        if found.get("format") != FORMAT:
            raise WrongFormatError(f"the index {where} has format {found.get('format')}, wanted is {FORMAT}")
        held = {name: Encoding(**each) for name, each in found["kinds"].items()}
        differs = [
            f"{name} vectors of {held.get(name, 'no encoder')}, wanted are those of {wanted}"
            for name, wanted in self._kinds.items()
            if held.get(name) != wanted
        ]
        differs += [
            f"{name} vectors, which the settings do not name" for name in held if name not in self._kinds
        ]
        if differs:
            raise WrongFormatError(f"the index {where} has {'; '.join(differs)}")
        self.fields = dict(found)

    def positions(self) -> Position:
        """Return the position."""
        found: Position = {}
        for name, offset in self.fields["positions"].items():
            topic, _, partition = name.rpartition(":")
            found[topic, int(partition)] = offset
        return found

    def move(self, position: Position) -> None:
        """Set the next offsets of some partitions."""
        moved = {f"{topic}:{number}": offset for (topic, number), offset in position.items()}
        self.fields["positions"] = self.fields["positions"] | moved
