"""Owners of chunks: which topics hold texts, whose text it is, and how it becomes chunks.

To make another topic searchable, add a line to `OWNERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import orjson
from xxhash import xxh3_128_hexdigest

from models.embedding.chunks import CHUNKER, Chunk, chunk_document, chunk_text
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import allows

__all__ = ["OWNERS", "Owner", "OwnerKind", "mark_of", "marked", "owner_of_key", "split"]

Record = Mapping[str, Any]


class Owner(NamedTuple):
    """The thing whose text the chunks are: `type` as in the embeddings topic, and its id."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


@dataclass(frozen=True, slots=True)
class OwnerKind:
    """How the records of one topic become chunks; `split` gets the fields of `reads`, raises NoTextError."""

    type: str
    reads: tuple[str, ...]
    split: Callable[[Owner, Record], list[Chunk]]


def owner_of_key(topic_name: str, key: str) -> Owner:
    """Return the owner that a record of a topic of owners is about: the key says it, also of a tombstone."""
    return Owner(OWNERS[topic_name].type, key)


def split(topic_name: str, key: str, record: Record) -> list[Chunk]:
    """Return the chunks of a record as it stands under its key; none of one that is `deleted`.

    Raises ContractError for a key that is not the record's own, NoTextError.
    """
    name = topic(topic_name).key[0]
    if record[name] != key:
        raise ContractError(f"the key is {key!r} and {name} is {record[name]!r}")
    if record["deleted"]:
        return []
    kind = OWNERS[topic_name]
    return kind.split(Owner(kind.type, key), {each: record.get(each) for each in kind.reads})


def mark_of(topic_name: str, said: bytes, encoder: str) -> str:
    """Return a hash of what a record says but for its time (`Decoder.apart`), and of the encoder's identity.

    A record of the mark of one that was split before, under the same key, has the same chunks and fields.
    """
    return xxh3_128_hexdigest(_salt(topic_name, encoder) + said)


def marked(topic_name: str, decoder: Decoder, value: bytes | None, encoder: str) -> tuple[str, int]:
    """Return the mark of a record and its event time, ms, as its bytes tell them; an empty mark where it has to
    be read. The time holds where another record of this mark was read, and its own was what its bytes told.

    Raises UndecodableError for bytes that are of no schema.
    """
    apart = None if value is None else decoder.apart(value)
    if apart is None or not allows(topic_name, "event_time", apart[1]):
        return "", 0
    return mark_of(topic_name, apart[0], encoder), apart[1]


@cache
def _salt(topic_name: str, encoder: str) -> bytes:
    return orjson.dumps((CHUNKER, encoder, topic_name))


_PRODUCT = ("name", "product_type", "subcategory", "category", "brand", "package_size")


def _product(owner: Owner, record: Record) -> list[Chunk]:
    """Name, classes, brand and size as one text; what an earlier part says already is not said again."""
    said: set[str] = set()
    parts: list[str] = []
    for name in _PRODUCT:
        part = (record.get(name) or "").strip()
        words = set(part.casefold().split())
        if words - said:
            parts.append(part.capitalize() if part.isupper() else part)
            said |= words
    return chunk_text(str(owner), ", ".join(parts))


def _document(owner: Owner, record: Record) -> list[Chunk]:
    return chunk_document(str(owner), record["title"], record["text"])


OWNERS: Mapping[str, OwnerKind] = {
    "products": OwnerKind("product", _PRODUCT, _product),
    "documents": OwnerKind("document", ("title", "text"), _document),
}
"""Topic -> how its records become chunks."""
