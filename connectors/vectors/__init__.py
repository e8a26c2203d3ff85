"""Vector indexes: one contract, and what implements it."""

from connectors.vectors.errors import (
    IndexBusyError,
    IndexDamagedError,
    IndexUnavailableError,
    WrongFormatError,
)
from connectors.vectors.index import (
    FORMAT,
    AnyOf,
    Between,
    Condition,
    Encoding,
    Entry,
    EntryId,
    Found,
    Kinds,
    OwnOrNone,
    Sparse,
    Vector,
    VectorIndex,
)

__all__ = [
    "FORMAT",
    "AnyOf",
    "Between",
    "Condition",
    "Encoding",
    "Entry",
    "EntryId",
    "Found",
    "IndexBusyError",
    "IndexDamagedError",
    "IndexUnavailableError",
    "Kinds",
    "OwnOrNone",
    "Sparse",
    "Vector",
    "VectorIndex",
    "WrongFormatError",
]
