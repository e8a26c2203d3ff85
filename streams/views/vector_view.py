"""The vector view: embeddings, and the fields of whom they belong to, folded into one index.

Two kinds of topics meet in one entry. `embeddings` and its second home say which vectors there are: of text one
a chunk, of every other kind one an owner. Products, documents and inventory say what is known of their owner: a
change of price encodes nothing. Either may come first, so what is known of an owner is kept in an entry of its
own, and the entry of a vector takes it from there.

A batch is written in an order that survives a crash anywhere: vectors, then owners, then the position. Until
the owners are written their records count as new, and are folded again. They may then end where they began (a
price that rises and falls again in one batch) while vectors show what was between: so a batch says before its
first vector how far it reaches, and whoever reads up to there again looks at every vector of a changed owner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from connectors.registry import RegistryUnavailableError
from connectors.vectors import AnyOf, Entry, IndexUnavailableError, VectorIndex
from connectors.vectors.lexical import Lexical
from models.embedding import OWNERS, Owner
from models.embedding.topics import FIRST, TOPICS
from models.search.fields import CHUNK, TEXT, entries_of
from models.search.vocabulary import Vocabulary
from schemas.errors import ContractError
from schemas.ids import event_id
from streams.metrics import StageMeters
from streams.views.guards import Guards
from streams.views.vector_batch import INVENTORY, Batch, BatchReader
from streams.views.vector_fold import OwnerState
from streams.views.view import Position, View

__all__ = ["VectorView"]

_ASKED_TOGETHER = 500
_REACH = event_id("vector-view", "reach")  # id of the entry that says how far the batch in hand reaches


class VectorView(View):
    """Folds into `index` the kinds that it has; embeddings of other kinds and encoders are counted, no more.

    A record of a product or document that cannot be read changes nothing; its dead letter is the embed agent's.

    Args:
        index: the index; this view is its only writer.
        fetch_schema: schema of a registry id (`Registry.schema`).
        vocabulary: is told which texts come and go.
    """

    name = "vector-view"
    topics = (*TOPICS, *OWNERS, INVENTORY)
    retried = (IndexUnavailableError, RegistryUnavailableError)

    def __init__(
        self,
        index: VectorIndex,
        fetch_schema: Callable[[int], Any],
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self._index = index
        self._vocabulary = Vocabulary() if vocabulary is None else vocabulary
        self._lexical = Lexical()
        self._meters = StageMeters(self.name)
        self._reader = BatchReader(index.kinds, fetch_schema, self._meters)
        self._guards = Guards(index)
        self._texts: dict[str, str | None] = {}  # of chunks that are being written, before they were
        self._reached: dict[str, int] | None = None  # what a process before this one may have written in part

    def positions(self) -> Position:
        """Return the position that the index holds."""
        return self._index.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold messages; the position moves after all that they change is written."""
        batch = self._reader.read(messages)
        states = self._states(batch)
        before = {owner: state.shown() for owner, state in states.items()}
        marks = {owner: state.mark for owner, state in states.items()}
        changed = self._fold(batch, states)
        shown = [owner for owner in changed if states[owner].shown() != before[owner]]
        if self._again(messages):
            shown = list(changed)
        if shown:
            self._index.put([self._reach(messages)])
        self._write_chunks(batch, states)
        self._write_fields([states[owner] for owner in shown])
        self._write_owners(batch, [states[owner] for owner in changed], marks)
        self.refuse(batch.unreadable)
        self._index.move({(each.topic(), each.partition()): each.offset() + 1 for each in messages})
        self._reader.remember(batch, [states[each.owner] for each in batch.records])
        now_ms = time.time() * 1000
        self._meters.freshness([max(now_ms - each.timestamp()[1], 0.0) / 1000 for each in messages])

    def _again(self, messages: Sequence[Any]) -> bool:
        """Whether a process before this one may have written some of what these messages change."""
        if self._reached is None:
            known = self._index.get([_REACH]).get(_REACH)
            self._reached = {} if known is None else orjson.loads(known.fields["state"])
        reached = self._reached
        return bool(reached) and any(each.offset() < reached.get(_partition(each), 0) for each in messages)

    def _reach(self, messages: Sequence[Any]) -> Entry:
        """The entry that says how far a batch reaches; like an owner's, it has no field that searches look at.

        What another process reached stays in it: that may be further, and this one may die as well.
        """
        ends = dict(self._reached or {})
        for each in messages:
            ends[_partition(each)] = max(each.offset() + 1, ends.get(_partition(each), 0))
        return Entry(_REACH, {"state": orjson.dumps(ends).decode()})

    def _states(self, batch: Batch) -> dict[Owner, OwnerState]:
        """The states of every owner that the batch is about."""
        owners = {each.owner: None for each in batch.records}
        owners |= {owner: None for owner, _, _ in batch.levels}
        owners |= {_owner(record): None for _, record in batch.chunks.values() if record is not None}
        ids = {owner: OwnerState.entry_id(owner) for owner in owners}
        found = self._index.get(list(ids.values()))
        states = {}
        for owner, each in ids.items():
            guard = batch.same.get(owner, self._guards.of(str(owner)))
            states[owner] = OwnerState.of(owner, each, found.get(each), guard)
        return states

    def _fold(self, batch: Batch, states: dict[Owner, OwnerState]) -> dict[Owner, None]:
        changed: dict[Owner, None] = {}
        for each in batch.records:
            try:
                if states[each.owner].record(each.topic, each.record, each.offset, each.mark):
                    changed[each.owner] = None
            except ContractError:
                self._meters.count("refused")
        for owner, record, offset in batch.levels:
            if states[owner].level(record["dealer_id"], record["on_hand"], record["event_time"], offset):
                changed[owner] = None
        return changed

    def _write_owners(self, batch: Batch, states: Sequence[OwnerState], marks: Mapping[Owner, str]) -> None:
        """Write what is known of changed owners: the guard alone, where no more than that moved."""
        levels = {owner for owner, _, _ in batch.levels}
        guards = {str(owner): guard for owner, guard in batch.same.items()}
        whole = []
        for state in states:
            name, mark = str(state.owner), state.mark
            if state.time_ms is None or not mark or mark != marks[state.owner] or state.owner in levels:
                whole.append(state)
                guards.pop(name, None)
            elif self._reader.remembers(state.owner):
                guards[name] = state.time_ms, state.offset
            else:
                whole.append(state)
        self._index.put([each.entry() for each in whole])
        self._guards.forget(str(each.owner) for each in whole)
        self._guards.put(guards)

    def _write_chunks(self, batch: Batch, states: dict[Owner, OwnerState]) -> None:
        there = self._index.get(list({key for _, key in batch.chunks}))
        put, gone = [], []
        for (name, key), (message, record) in batch.chunks.items():
            known = there.get(key)
            same = known is not None and known.fields.get("topic", FIRST) == name
            if known is not None and same and known.fields["offset"] >= message.offset():
                continue  # it comes again, and what came after it is there already
            if record is not None:
                put.append(self._chunk(record, states[_owner(record)], message))
            elif same:  # the other home's chunk of this name is not this one's to delete
                gone.append(key)
        moved = {each.id: each for each in put}
        gone = [key for key in gone if key not in moved]
        # What was there before the first try: an index that was away in the middle may hold what it was given.
        for _, key in batch.chunks:
            self._texts.setdefault(key, _text(there.get(key)))
        self._index.put(put)
        self._index.delete(gone)
        there |= moved
        for key, before in self._texts.items():
            after = None if key in gone else _text(there.get(key))
            if before is not None and before != after:
                self._vocabulary.remove(before)
            if after is not None and before != after:
                self._vocabulary.add(after)
        self._texts.clear()
        self._meters.count("vectors", len(put))
        self._meters.count("deleted", len(gone))

    def _chunk(self, record: dict[str, Any], state: OwnerState, message: Any) -> Entry:
        kind = record["kind"]
        fields = {
            "entry": kind, "owner": str(state.owner), "type": state.owner.type, "subject_id": state.owner.id,
            "fingerprint": record["fingerprint"], "topic": message.topic(), "offset": message.offset(),
            **state.shared(),
        }  # fmt: skip
        vector = {kind: np.frombuffer(record["vector"], "<f4").astype(np.float32)}
        if kind != TEXT:
            return Entry(record["chunk_id"], fields | {"encoder": record["encoder"]}, vector)
        text = record["text"] or ""
        fields |= {"entry": CHUNK, "text": text, **state.place(record["chunk_id"])}
        return Entry(record["chunk_id"], fields, vector, self._lexical.document(text))

    def _write_fields(self, states: Iterable[OwnerState]) -> None:
        """Give the vectors that were there before what their owners have now."""
        by_name = {str(state.owner): state for state in states}
        names = list(by_name)
        changes: dict[str, dict[str, Any]] = {}
        entries = entries_of(self._index.kinds)
        for start in range(0, len(names), _ASKED_TOGETHER):
            wanted = [AnyOf("entry", entries), AnyOf("owner", names[start : start + _ASKED_TOGETHER])]
            for each in self._index.scan(wanted):
                state = by_name[each.fields["owner"]]
                fields = state.shared() | (state.place(each.id) if each.fields["entry"] == CHUNK else {})
                differs = {name: value for name, value in fields.items() if each.fields.get(name) != value}
                if differs:
                    changes[each.id] = differs
        self._index.set_fields(changes)
        self._meters.count("fields", len(changes))


def _text(entry: Entry | None) -> str | None:
    return None if entry is None else entry.fields.get("text")


def _partition(message: Any) -> str:
    return f"{message.topic()}/{message.partition()}"


def _owner(record: dict[str, Any]) -> Owner:
    return Owner(record["subject_type"], record["subject_id"])
