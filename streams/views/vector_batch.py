"""A batch of messages as the vector view reads it: decoded and checked, but for what it knows without reading.

A record that says what its owner's last one said, but for its time, is known by its bytes (`Decoder.apart`):
it is neither decoded nor folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from connectors.vectors import Kinds
from models.embedding import OWNERS, Owner, marked, owner_of_key
from models.embedding.topics import TOPICS
from models.search.fields import GIVES
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.metrics import StageMeters
from streams.views.guards import Guard
from streams.views.vector_fold import OwnerState

__all__ = ["INVENTORY", "Batch", "BatchReader", "OwnerRecord"]

INVENTORY = "inventory"
_REMEMBERED = 100_000  # owners, some 400 bytes each


class OwnerRecord(NamedTuple):
    """A record of an owner, None for a tombstone, its offset and its mark; empty where that cannot be known."""

    topic: str
    owner: Owner
    record: dict[str, Any] | None
    offset: int
    mark: str


@dataclass(slots=True)
class Batch:
    """What a batch of messages says, in order.

    `chunks` are the last messages of the keys of the embeddings topics, `levels` what a dealer has of a
    product, with the offset. `same` are owners whose records said nothing new before the first of theirs in
    `records`.
    """

    chunks: dict[tuple[str, str], tuple[Any, dict[str, Any] | None]] = field(default_factory=dict)
    records: list[OwnerRecord] = field(default_factory=list)
    levels: list[tuple[Owner, dict[str, Any], int]] = field(default_factory=list)
    same: dict[Owner, Guard] = field(default_factory=dict)
    unreadable: list[tuple[Any, Exception]] = field(default_factory=list)


class _Last(NamedTuple):
    mark: str
    time_ms: int
    offset: int


class BatchReader:
    """Reads batches, and remembers what some owners said last: those that it was told of first, of very many.

    A record of a product or document that cannot be read is left out; its dead letter is the embed agent's.

    Args:
        kinds: of vectors that are wanted; others, and those of other encoders, are counted, no more.
        fetch_schema: schema of a registry id (`Registry.schema`).
    """

    def __init__(self, kinds: Kinds, fetch_schema: Callable[[int], Any], meters: StageMeters) -> None:
        self._kinds, self._meters = kinds, meters
        topics = (*TOPICS, *OWNERS, INVENTORY)
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in topics}
        self._last: dict[Owner, _Last] = {}

    def read(self, messages: Sequence[Any]) -> Batch:
        """Return what the messages say."""
        batch, read = Batch(), set[Owner]()
        for message in messages:
            name, key = message.topic(), (message.key() or b"").decode(errors="replace")
            try:
                if name in OWNERS:
                    self._owner(batch, read, message, name, key)
                    continue
                record = self._record(name, message.value())
                if name in TOPICS:
                    if record is None or self._fits(record, key):
                        batch.chunks[name, key] = (message, record)
                elif record is not None:
                    batch.levels.append((Owner("product", record["product_id"]), record, message.offset()))
            except ContractError as error:
                if name in OWNERS:
                    self._meters.count("refused")
                else:
                    batch.unreadable.append((message, error))
        return batch

    def remember(self, batch: Batch, states: Iterable[OwnerState]) -> None:
        """Remember what the owners of a batch said last, when it is written; `states` as it left them."""
        for owner, (time_ms, offset) in batch.same.items():
            self._last[owner] = _Last(self._last[owner].mark, time_ms, offset)
        for state in states:
            if not state.mark or state.time_ms is None:
                self._last.pop(state.owner, None)
            elif state.owner in self._last or len(self._last) < _REMEMBERED:
                self._last[state.owner] = _Last(state.mark, state.time_ms, state.offset)

    def remembers(self, owner: Owner) -> bool:
        """Whether an owner's last record is among those remembered, or there is room for it."""
        return owner in self._last or len(self._last) < _REMEMBERED

    def _owner(self, batch: Batch, read: set[Owner], message: Any, name: str, key: str) -> None:
        owner, value, offset = owner_of_key(name, key), message.value(), message.offset()
        mark, time_ms = marked(name, self._decoders[name], value, GIVES)
        last = self._last.get(owner)
        if mark and last is not None and last.mark == mark and owner not in read:
            guard = batch.same.get(owner, (last.time_ms, last.offset))
            if time_ms >= guard[0] and offset > guard[1]:
                batch.same[owner] = time_ms, offset
            return
        record = self._record(name, value)
        if record is not None and record["event_time"] != time_ms:
            mark = ""
        batch.records.append(OwnerRecord(name, owner, record, offset, mark))
        read.add(owner)

    def _record(self, name: str, value: bytes | None) -> dict[str, Any] | None:
        return None if value is None else valid(name, self._decoders[name].decode(value))

    def _fits(self, record: dict[str, Any], key: str) -> bool:
        encoding = self._kinds.get(record["kind"])
        if encoding is None or not encoding.accepts(record["encoder"]):
            self._meters.count("other_kind" if encoding is None else "other_encoder")
            return False
        size = 4 * encoding.dimension
        if record["dimension"] != encoding.dimension or len(record["vector"]) != size:
            raise ContractError(
                f"a vector of {record['dimension']} numbers in {len(record['vector'])} bytes, "
                f"where {record['encoder']} has {encoding.dimension} in {size}"
            )
        if record["chunk_id"] != key or len(key) != 32 or not set(key) <= set("0123456789abcdef"):
            raise ContractError(f"the key is {key!r} and chunk_id is {record['chunk_id']!r}")
        if not np.isfinite(np.frombuffer(record["vector"], "<f4")).all():
            raise ContractError("the vector holds a number that is not finite")
        return True
