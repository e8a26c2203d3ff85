"""What an index says of itself: one entry with its format, encoder, length of vectors, and position."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from connectors.vectors.errors import WrongFormatError
from connectors.vectors.index import FORMAT, EntryId, Fields, Position
from schemas.ids import event_id

__all__ = ["DENSE", "SPARSE", "About", "said", "uuid_of"]

DENSE, SPARSE = "text", "words"
"""Names of the vectors in a Qdrant index."""


def uuid_of(identity: EntryId) -> str:
    """Return an entry's id as Qdrant has it."""
    return str(UUID(identity))


def said(fields: Fields) -> Fields:
    """Return the fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


class About:
    """The entry as it is kept in the index; `fields` are to be written when they have changed."""

    id = uuid_of(event_id("index", "about"))

    def __init__(self, encoder: str, dimension: int) -> None:
        self.fields: dict[str, Any] = {
            "format": FORMAT, "encoder": encoder, "dimension": dimension, "positions": {},
        }  # fmt: skip

    def read(self, found: Fields | None, where: str) -> None:
        """Take over what was found in an index. Raises WrongFormatError where it is not what this one wants."""
        found = found or {}
        differs = [
            f"{name} {found.get(name)!r}, wanted is {value!r}"
            for name, value in self.fields.items()
            if name != "positions" and found.get(name) != value
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
