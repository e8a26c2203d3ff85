"""products, documents → embeddings: a vector for every chunk that is new, a tombstone for every one gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from prometheus_client import Counter
from redis.exceptions import RedisError

from models.embedding import (
    OWNERS,
    Chunk,
    Owner,
    fingerprint,
    owner_of_key,
    split,
    whole_fingerprint,
)
from models.embedding.topics import FIRST
from models.encoding import Vectors
from models.text import Encoder, EncoderUnavailableError
from schemas.errors import ContractError
from schemas.ids import event_id
from streams.agents.embedded import Embedded, Known
from streams.agents.recognising import KnownByBytes
from streams.agents.stage import Begun, Derived, Event, Outcome, Record, Stage
from streams.metrics import REGISTRY

__all__ = ["EmbedStage"]

CHUNKS = Counter(
    "dealeriq_embedded_chunks", "Chunks of owners by what became of them", ["outcome"], registry=REGISTRY
)


@dataclass(slots=True)
class _State:
    """What is known of an owner, as the events of a batch move it; `event` is the last that did."""

    owner: Owner
    before: Known | None
    time_ms: int | None
    event: int | None = None
    record: Record | None = None
    chunks: list[Chunk] = field(default_factory=list)
    after: Known | None = None


class EmbedStage(Stage):
    """Encodes what changed; of a batch, what says the same once.

    Of several events of one owner the newest event time counts, and a tombstone deletes whatever is known when
    it comes; both as the vector view has it. Outcomes: `encoded`, `unchanged` (nothing to encode), `superseded`
    (another event of the owner counts), `deleted`.

    Args:
        encoder: of texts; for more than one part `at_once` it must be safe on as many threads.
        embedded: what is known of the owners.
        target: the topic of the vectors, which is the encoder's home.
    """

    sources = tuple(OWNERS)
    retried = (RedisError, EncoderUnavailableError)
    takes_tombstones = True
    refreshed = True
    most_bytes = 262_144
    overlaps = True  # nothing but what is known of its owners is read and written
    wanted_s = 0.5  # its vectors are out, and an edit is found, before a backlog is through

    def __init__(
        self,
        encoder: Encoder,
        embedded: Embedded,
        target: str = FIRST,
        name: str = "embed-agent",
        at_once: int = 1,
    ) -> None:
        self._encoder, self._embedded, self.at_once = encoder, embedded, at_once
        self.target, self.name = target, name
        self.recogniser = KnownByBytes(embedded, encoder.identity)

    def derive(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Return the vectors and tombstones that bring each owner's chunks up to its newest event."""
        begun = self.begin(events)
        return begun.outcomes(begun.derive())

    def begin(self, events: Sequence[Event]) -> Begun:
        """Find what has to be encoded; to encode it is what takes its time."""
        outcomes = [Outcome("superseded")] * len(events)
        states = self._fold(events, outcomes)
        wanted = [(state, chunk) for state in states for chunk in self._fresh(state)]
        # Things of one name and several ids are many in a catalogue.
        texts = list(dict.fromkeys(chunk.text for _, chunk in wanted))

        def told(vectors: Vectors) -> Sequence[Outcome]:
            self._tell(events, states, wanted, dict(zip(texts, vectors.astype("<f4"), strict=True)), outcomes)
            return outcomes

        return Begun(partial(self._encoder.encode, texts), told)

    def _tell(
        self,
        events: Sequence[Event],
        states: list[_State],
        wanted: Sequence[tuple[_State, Chunk]],
        vectors: Mapping[str, Vectors],
        outcomes: list[Outcome],
    ) -> None:
        """Set the outcomes of the events that count, given the vector of each text."""
        derived: dict[Owner, list[Derived]] = {}
        for state, chunk in wanted:
            embedding = self._embedding(state, chunk, vectors[chunk.text].tobytes())
            derived.setdefault(state.owner, []).append(embedding)
        self._embedded.write(_on_the_way(wanted))
        for state in states:
            if state.event is None:
                continue
            gone = self._gone(state)
            follows = [*derived.get(state.owner, ()), *(_tombstone(state, each, events) for each in gone)]
            if state.after is None or not state.after.chunks:
                name = "deleted"
            else:
                name = "encoded" if follows else "unchanged"
            outcomes[state.event] = Outcome(name, follows, memo=(state.owner, state.after))

    def after(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """Remember what Kafka now has."""
        self._embedded.write(outcome.memo for outcome in outcomes if outcome.memo is not None)
        for outcome in outcomes:
            for each in outcome.derived:
                CHUNKS.labels("deleted" if each.record is None else "encoded").inc()

    def _fold(self, events: Sequence[Event], outcomes: list[Outcome]) -> list[_State]:
        """Bring each owner's state up to the events; what an event cannot give a text is refused."""
        owners = [owner_of_key(event.topic, event.key) for event in events]
        distinct = list(dict.fromkeys(owners))
        known = zip(distinct, self._embedded.read(distinct), strict=True)
        states = {owner: _State(owner, found, found and found.time_ms, after=found) for owner, found in known}
        for at, (owner, event) in enumerate(zip(owners, events, strict=True)):
            try:
                self._move(states[owner], at, event)
            except ContractError as error:
                outcomes[at] = Outcome(refused=str(error))
        return list(states.values())

    def _move(self, state: _State, at: int, event: Event) -> None:
        if event.record is None:
            state.time_ms, state.event, state.chunks, state.after = None, at, [], None
            return
        if state.time_ms is not None and event.time_ms < state.time_ms:
            return
        state.chunks, state.record = split(event.topic, event.key, event.record), event.record
        state.time_ms, state.event = event.time_ms, at
        ids, identity = [chunk.id for chunk in state.chunks], self._encoder.identity
        whole = whole_fingerprint(ids, identity) if ids else ""
        state.after = Known(event.time_ms, whole, ids, mark=event.mark)

    def _fresh(self, state: _State) -> list[Chunk]:
        """The chunks that must be encoded."""
        before, after, identity = state.before, state.after, self._encoder.identity
        if state.event is None or after is None or (before and before.fingerprint == after.fingerprint):
            return []
        # Another chunker or encoder makes every chunk new, whatever its id.
        same = before is not None and before.fingerprint == whole_fingerprint(before.chunks, identity)
        known = set(before.chunks) if before is not None and same else set()
        return [chunk for chunk in state.chunks if chunk.id not in known]

    def _gone(self, state: _State) -> list[str]:
        before, after = state.before, state.after
        if before is None:
            return []
        left = set(after.chunks) if after is not None else set()
        return [each for each in dict.fromkeys([*before.chunks, *before.maybe]) if each not in left]

    def _embedding(self, state: _State, chunk: Chunk, vector: bytes) -> Derived:
        encoder, time_ms = self._encoder, state.time_ms
        assert time_ms is not None
        mark = fingerprint(chunk.text, encoder.identity)
        record = {
            "chunk_id": chunk.id,
            "subject_type": state.owner.type,
            "subject_id": state.owner.id,
            "chunk": chunk.number,
            "kind": "text",
            "encoder": encoder.identity,
            "dimension": encoder.dimension,
            "vector": vector,
            "fingerprint": mark,
            "text": chunk.text,
            "dealer_id": (state.record or {}).get("dealer_id"),
            "event_time": time_ms,
        }
        return Derived(
            chunk.id, record, str(state.owner), identity=event_id("embedding", chunk.id, mark, time_ms)
        )


def _on_the_way(wanted: Sequence[tuple[_State, Chunk]]) -> Iterator[tuple[Owner, Known]]:
    """What is known of the owners that get new chunks, and that these may be in the topic from now on."""
    for _, group in groupby(wanted, key=lambda each: each[0].owner):
        pairs = list(group)
        before = pairs[0][0].before or Known(None, "", ())
        maybe = dict.fromkeys([*before.maybe, *(chunk.id for _, chunk in pairs)])
        yield pairs[0][0].owner, before._replace(maybe=list(maybe))


def _tombstone(state: _State, chunk: str, events: Sequence[Event]) -> Derived:
    assert state.event is not None
    cause = events[state.event]
    identity = event_id("embedding", chunk, None, cause.topic, cause.partition, cause.offset)
    return Derived(chunk, None, str(state.owner), identity=identity, time_ms=cause.time_ms)
