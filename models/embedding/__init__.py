"""From a record to what an encoder reads: cleaned texts in chunks, each named by its content."""

from models.embedding.chunks import CHUNKER, Chunk, NoTextError, fingerprint, whole_fingerprint
from models.embedding.owners import OWNERS, Owner, OwnerKind, mark_of, marked, owner_of_key, split

__all__ = [
    "CHUNKER",
    "OWNERS",
    "Chunk",
    "NoTextError",
    "Owner",
    "OwnerKind",
    "fingerprint",
    "mark_of",
    "marked",
    "owner_of_key",
    "split",
    "whole_fingerprint",
]
