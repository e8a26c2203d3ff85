"""products → embeddings of kind `image`: a vector for each picture that is new, a tombstone where one went.

A product has one picture, at `image_url`, and one chunk. The address decides whether anything is fetched, the
bytes whether anything is encoded: another picture needs another address (`…/front.jpg?v=2`), as caches of
pictures have it, and a catalogue that is sent again costs a look-up for each product, which is not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client import Counter
from redis.exceptions import RedisError

from connectors.images import ImageSource, ImagesUnavailableError
from models.embedding import Owner
from models.image import ImageEncoder, Pixels
from schemas.errors import ContractError
from schemas.ids import event_id
from streams.agents.embedded import Embedded, Known
from streams.agents.recognising import KnownByBytes
from streams.agents.stage import Derived, Event, Outcome, Stage
from streams.metrics import REGISTRY

__all__ = ["ImageStage", "chunk_of", "of_address"]

IMAGES = Counter(
    "dealeriq_embedded_images", "Pictures of products by what became of them", ["outcome"], registry=REGISTRY
)
_TOGETHER = 64  # pictures in memory at once, as pixels


def chunk_of(owner: Owner) -> str:
    """Return the key under which an owner's picture stands in the embeddings topic."""
    return event_id("image", str(owner))


def of_address(address: str, encoder: str) -> str:
    """Return what the mark of a picture begins with that was fetched from an address, and encoded."""
    return event_id("image", address, encoder)


@dataclass(slots=True)
class _State:
    """An owner, and the events of the batch that may count, the newest last."""

    owner: Owner
    before: Known | None
    time_ms: int | None
    candidates: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Picture:
    state: _State
    at: int
    whole: str
    mark: str
    pixels: Pixels


class ImageStage(Stage):
    """Encodes pictures that changed.

    Of several events of one product the newest whose picture can be read counts; a tombstone deletes. Outcomes:
    `encoded`, `unchanged`, `superseded`, `deleted`. What cannot be fetched or read is a dead letter, and the
    vector of the picture before stays.

    Args:
        encoder: of pictures.
        embedded: what is known of the owners, under names of its own.
        source: fetches an address.
        fetchers: addresses fetched at once.
    """

    name = "image-agent"
    sources = ("products",)
    target = "embeddings"
    retried = (RedisError, ImagesUnavailableError)
    takes_tombstones = True
    refreshed = True

    def __init__(
        self, encoder: ImageEncoder, embedded: Embedded, source: ImageSource, fetchers: int = 8
    ) -> None:
        self._encoder, self._embedded, self._source = encoder, embedded, source
        self.recogniser = KnownByBytes(embedded, encoder.identity)
        self._pool = ThreadPoolExecutor(fetchers, thread_name_prefix="image")

    def derive(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Return the vectors and tombstones that bring each product's picture up to its newest event."""
        outcomes = [Outcome("superseded")] * len(events)
        states = [each for each in self._fold(events, outcomes) if each.candidates]
        while states:  # a picture that cannot be read lets the event before it count
            asked: list[tuple[_State, int, str]] = []
            for state in states:
                at = state.candidates.pop()
                if (address := self._decided(state, events[at], at, outcomes)) is not None:
                    asked.append((state, at, address))
            refused: list[_State] = []
            for start in range(0, len(asked), _TOGETHER):
                refused += self._pictures(asked[start : start + _TOGETHER], events, outcomes)
            states = [each for each in refused if each.candidates]
        return outcomes

    def after(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """Remember what Kafka now has."""
        self._embedded.write(outcome.memo for outcome in outcomes if outcome.memo is not None)
        for outcome in outcomes:
            for each in outcome.derived:
                IMAGES.labels("deleted" if each.record is None else "encoded").inc()

    def _fold(self, events: Sequence[Event], outcomes: list[Outcome]) -> list[_State]:
        owners = [Owner("product", event.key) for event in events]
        distinct = list(dict.fromkeys(owners))
        known = zip(distinct, self._embedded.read(distinct), strict=True)
        states = {owner: _State(owner, found, found and found.time_ms) for owner, found in known}
        for at, (owner, event) in enumerate(zip(owners, events, strict=True)):
            state = states[owner]
            if event.record is None:
                state.candidates, state.time_ms = [at], None
            elif event.record["product_id"] != event.key:
                name = event.record["product_id"]
                outcomes[at] = Outcome(refused=f"the key is {event.key!r} and product_id is {name!r}")
            elif state.time_ms is None or event.time_ms >= state.time_ms:
                state.candidates.append(at)
        for state in states.values():
            # A tombstone stands first, and what came after it by its time; ties go to the later one.
            state.candidates.sort(key=lambda at: (events[at].record is not None, events[at].time_ms, at))
        return list(states.values())

    def _decided(self, state: _State, event: Event, at: int, outcomes: list[Outcome]) -> str | None:
        """The address to fetch; None where the outcome is known without."""
        record, before = event.record, state.before
        address = record.get("image_url") if record is not None and not record["deleted"] else None
        if address is None:
            there = [*before.chunks, *before.maybe] if before is not None else []
            follows = [self._tombstone(state, each, event) for each in dict.fromkeys(there)]
            memo = None if record is None else Known(event.time_ms, "", [], mark=event.mark)
            name = "deleted" if follows or record is None or record["deleted"] else "unchanged"
            outcomes[at] = Outcome(name, follows, memo=(state.owner, memo))
            return None
        if before is not None and before.chunks and before.fingerprint.startswith(f"{self._mark(address)}:"):
            memo = Known(event.time_ms, before.fingerprint, before.chunks, mark=event.mark)
            outcomes[at] = Outcome("unchanged", memo=(state.owner, memo))
            return None
        return str(address)

    def _pictures(
        self, asked: Sequence[tuple[_State, int, str]], events: Sequence[Event], outcomes: list[Outcome]
    ) -> list[_State]:
        """Fetch, read and encode; return the states whose picture was refused."""
        refused: list[_State] = []
        fresh: list[_Picture] = []
        found = [self._pool.submit(self._source.fetch, address) for _, _, address in asked]
        for (state, at, address), content in zip(asked, found, strict=True):
            try:
                held = content.result()
                mark = event_id("embedding", hashlib.sha256(held).hexdigest(), self._encoder.identity)
                whole = f"{self._mark(address)}:{mark}"
                if state.before and state.before.chunks and state.before.fingerprint.endswith(f":{mark}"):
                    memo = Known(events[at].time_ms, whole, state.before.chunks, mark=events[at].mark)
                    outcomes[at] = Outcome("unchanged", memo=(state.owner, memo))
                    continue
                fresh.append(_Picture(state, at, whole, mark, self._encoder.read(held)))
            except ContractError as error:
                outcomes[at] = Outcome(refused=f"{state.owner}: {error}")
                refused.append(state)
        vectors = self._encoder.encode([each.pixels for each in fresh])
        self._embedded.write(_on_the_way(fresh))
        for each, vector in zip(fresh, vectors, strict=True):
            event, chunk = events[each.at], chunk_of(each.state.owner)
            derived = self._embedding(each, event, chunk, vector.astype("<f4").tobytes())
            memo = Known(event.time_ms, each.whole, [chunk], mark=event.mark)
            outcomes[each.at] = Outcome("encoded", [derived], memo=(each.state.owner, memo))
        return refused

    def _mark(self, address: str) -> str:
        return of_address(address, self._encoder.identity)

    def _embedding(self, picture: _Picture, event: Event, chunk: str, vector: bytes) -> Derived:
        encoder, owner = self._encoder, picture.state.owner
        record = {
            "chunk_id": chunk,
            "subject_type": owner.type,
            "subject_id": owner.id,
            "chunk": 0,
            "kind": "image",
            "encoder": encoder.identity,
            "dimension": encoder.dimension,
            "vector": vector,
            "fingerprint": picture.mark,
            "text": None,
            "dealer_id": None,
            "event_time": event.time_ms,
        }
        identity = event_id("embedding", chunk, picture.mark, event.time_ms)
        return Derived(chunk, record, str(owner), identity=identity)

    def _tombstone(self, state: _State, chunk: str, cause: Event) -> Derived:
        identity = event_id("embedding", chunk, None, cause.topic, cause.partition, cause.offset)
        return Derived(chunk, None, str(state.owner), identity=identity, time_ms=cause.time_ms)


def _on_the_way(fresh: Sequence[_Picture]) -> Iterator[tuple[Owner, Known]]:
    """What is known of the owners of new pictures, and that these may be in the topic from now on."""
    for each in fresh:
        before = each.state.before or Known(None, "", ())
        # Without a mark: until it is known which of both pictures the topic has, neither is taken as there.
        yield each.state.owner, before._replace(fingerprint="", maybe=[chunk_of(each.state.owner)])
