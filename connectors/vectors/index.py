"""What a vector index promises, whichever engine holds it.

An entry has an id (32 hexadecimal digits), dense vectors by their kind, a sparse vector or none, and fields.
Each kind of an index holds vectors of one encoder, named when the index is made. The index also holds the
position up to which it is true: it belongs to the store that it describes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "FORMAT",
    "AnyOf",
    "Between",
    "Condition",
    "Encoding",
    "Entry",
    "EntryId",
    "Found",
    "Kinds",
    "OwnOrNone",
    "Position",
    "Sparse",
    "Vector",
    "VectorIndex",
]

FORMAT = 3
"""Version of what is stored and how; an index of another version is refused, and made again from the topics."""

EntryId = str
Fields = dict[str, Any]
Vector = np.ndarray[Any, np.dtype[np.float32]]
Position = dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Encoding:
    """Whose vectors a kind holds: an encoder's identity, `name@version`, and how many numbers a vector has.

    An encoder given by its name alone makes versions of its own while the index lives, as a graph does that is
    made anew. Vectors of all of them are held; who searches asks for one version.
    """

    encoder: str
    dimension: int

    @property
    def versioned(self) -> bool:
        """Whether the encoder is named with its version, so that all vectors can be compared."""
        return "@" in self.encoder

    def accepts(self, encoder: str) -> bool:
        """Whether vectors of this identity belong here."""
        return self.encoder == (encoder if self.versioned else encoder.partition("@")[0])

    def __str__(self) -> str:
        return f"{self.encoder} ({self.dimension} numbers)"


Kinds = Mapping[str, Encoding]
"""Kind of vectors, as in the embeddings topic → whose they are."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """Weights of terms: equally long lists, each term once."""

    terms: Sequence[int]
    weights: Sequence[float]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `dense` maps kinds to vectors; of a vector only the direction counts, and its length is 1 when
    it is read. A field that is None is absent.
    """

    id: EntryId
    fields: Fields = field(default_factory=dict)
    dense: Mapping[str, Vector] = field(default_factory=dict)
    sparse: Sparse | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One entry that a search found; `score` is the cosine of a dense search, the BM25 sum of a sparse one."""

    id: EntryId
    score: float
    fields: Fields


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field is one of the values, or is a list that holds one of them."""

    field: str
    values: Sequence[str | int]

    def met(self, fields: Fields) -> bool:
        """Whether an entry with these fields meets it."""
        return any(each in self.values for each in _each(fields.get(self.field)))


@dataclass(frozen=True, slots=True)
class Between:
    """The field is a number within the bounds, both inclusive; None bounds nothing."""

    field: str
    low: float | None = None
    high: float | None = None

    def met(self, fields: Fields) -> bool:
        """Whether an entry with these fields meets it."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        held = _each(fields.get(self.field))
        return any(isinstance(each, int | float) and low <= each <= high for each in held)


@dataclass(frozen=True, slots=True)
class OwnOrNone:
    """The field is absent, or is this value."""

    field: str
    value: str | None

    def met(self, fields: Fields) -> bool:
        """Whether an entry with these fields meets it."""
        held = _each(fields.get(self.field))
        return not held or (self.value is not None and self.value in held)


def _each(value: Any) -> list[Any]:
    """A field's values: those of a list, none of one that is absent."""
    return value if isinstance(value, list) else [] if value is None else [value]


Condition = AnyOf | Between | OwnOrNone


class VectorIndex(ABC):
    """A store of entries that is searched by meaning and by words.

    One thread writes; any may search meanwhile, and sees each write whole. What a method wrote is there after a
    kill -9. Every method raises IndexUnavailableError where the index is on a server that is away.

    Fields that searches filter on are named when the index is made (`keywords`, `numbers`); others may be
    stored. So are the kinds of vectors: an index that was made with other ones is refused when it is opened.
    """

    kinds: Kinds

    @abstractmethod
    def put(self, entries: Sequence[Entry]) -> None:
        """Store entries, each in place of the one of its id."""

    @abstractmethod
    def set_fields(self, changes: Mapping[EntryId, Fields]) -> None:
        """Set these fields of entries and leave the others; None removes one. An id not there is no error."""

    @abstractmethod
    def delete(self, ids: Sequence[EntryId]) -> None:
        """Remove entries; an id not there is no error."""

    @abstractmethod
    def get(self, ids: Sequence[EntryId], *, vectors: bool = False) -> dict[EntryId, Entry]:
        """Return the entries that are there, by id; vectors only where asked for."""

    @abstractmethod
    def scan(
        self, conditions: Sequence[Condition] = (), *, vectors: bool = False, batch: int = 1_000
    ) -> Iterator[Entry]:
        """Yield every entry that meets all conditions, in the order of ids. Writes meanwhile may be seen."""

    @abstractmethod
    def near(self, kind: str, vector: Vector, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the entries whose vectors of this kind are nearest by cosine, best first."""

    @abstractmethod
    def matching(self, query: Sparse, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the entries that share terms with the query, by the sum of weights times inverse document
        frequency (BM25, where the weights are its term frequencies), best first.
        """

    @abstractmethod
    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Return how many entries meet all conditions."""

    @abstractmethod
    def positions(self) -> Position:
        """Return the position that the index holds; empty for a new one."""

    @abstractmethod
    def move(self, position: Position) -> None:
        """Store the next offsets of some partitions; those of others stay."""

    @abstractmethod
    def close(self) -> None:
        """Write everything to its place, and let go."""
