"""The hybrid view: the vectors of a product's text, place in the graph and picture, kept fused into one.

The parts are folded into a store with its position, and what was published is a fold of the same topic: the
view reads its own vectors. So it always knows what is there, also after a crash between publishing and
remembering it: before anything is published the rest of the log is read. What is published follows from the
newest records alone:

- of each kind the encoder of most of its vectors is in use; others have no part in it until they are the most;
- of texts only the home of the encoder in use counts;
- nothing is published until every kind has a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from redis.exceptions import RedisError

from connectors.kafka import KafkaUnavailableError
from connectors.registry import RegistryRefusedError, RegistryUnavailableError
from models.embedding.topics import FIRST, TOPICS
from models.fusion import HYBRID, Fusion, Part
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.hybrid.publisher import Fused, HybridPublisher, key_of
from streams.hybrid.store import Held, HybridStore, HybridStoreAwayError, Published
from streams.hybrid.store import Row as PartRow
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["HybridView"]

_TOGETHER = 500  # products looked at, and published, at once
_TEXT = "text"


class HybridView(View):
    """Folds the parts of products into `store`, and publishes the vectors that changed.

    Outcomes that are counted: `published`, `unchanged` (the same parts), `deleted`, `other` (no part of a
    product), `refused` (cannot be read: the vector view keeps the dead letter).

    Args:
        store: this view is its only writer.
        publisher: where fused vectors go.
        fetch_schema: schema of a registry id (`Registry.schema`).
        weights: of the kinds that are fused, the text's first.
        home: returns the topic of the text encoder in use.
        unread: yields lots of messages from a position to the end that the log has now.
    """

    name = "hybrid-view"
    topics = TOPICS
    retried = (
        HybridStoreAwayError, RedisError, RegistryUnavailableError, RegistryRefusedError, KafkaUnavailableError,
    )  # fmt: skip

    def __init__(
        self,
        store: HybridStore,
        publisher: HybridPublisher,
        fetch_schema: Callable[[int], Any],
        weights: Mapping[str, float],
        home: Callable[[], str],
        unread: Callable[[Position], Iterable[Sequence[Any]]],
    ) -> None:
        self._store, self._publisher, self._weights = store, publisher, dict(weights)
        self._home, self._unread = home, unread
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in self.topics}
        self._meters = StageMeters(self.name)
        self._sent: dict[str, tuple[str, Published]] = {}  # what the store does not have yet
        self._fused_by: Fusion | None = None  # what everything that is published is of
        self._seen_home = ""

    def positions(self) -> Position:
        """Bring the store up to the end of the log and publish what is missing; return its position."""
        self._publisher.open()
        for lot in self._unread(self._store.positions()):
            with self._store.transaction():
                self._fold(lot)
        self._bring_up(None)
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold messages, publish what follows from them, and move the position behind both."""
        self._bring_up(messages)

    def tick(self) -> None:
        """Go over to another home of texts."""
        if self._home() != self._seen_home:
            self._bring_up(None)

    def _bring_up(self, messages: Sequence[Any] | None) -> None:
        """Publish what messages changed; in another space, or without them, all that is not as it should be."""
        home = self._home()
        with self._store.transaction():
            self._store.keep(self._sent)  # of a try whose end the store did not keep
            touched = None if messages is None else self._fold(messages)
            fusion = self._fusion(home)
            if touched is None or _name(fusion) != _name(self._fused_by):
                self._publish_all(fusion, home)
            else:
                for start in range(0, len(touched), _TOGETHER):
                    self._publish(touched[start : start + _TOGETHER], fusion, home)
        self._sent.clear()
        self._fused_by, self._seen_home = fusion, home

    def _fold(self, messages: Sequence[Any]) -> list[str]:
        """Keep parts, and what was published; return the products that this is about."""
        touched: dict[str, None] = {}
        for message in messages:
            name, key = message.topic(), (message.key() or b"").decode(errors="replace")
            if message.value() is None:
                product = self._store.drop(name, key) or self._taken_back(name, key, message.offset())
            else:
                product = self._record(name, key, message)
            if product is not None:
                touched[product] = None
        self._store.move({(each.topic(), each.partition()): each.offset() + 1 for each in messages})
        return list(touched)

    def _record(self, name: str, key: str, message: Any) -> str | None:
        try:
            record = valid(name, self._decoders[name].decode(message.value()))
            if not self._wanted(name, record):
                self._meters.count("other")
                return None
            _check(record, key)
        except ContractError:
            self._meters.count("refused")
            return None
        product = str(record["subject_id"])
        if record["kind"] == HYBRID:
            there = self._store.published([product]).get(product)
            if there is not None and message.offset() <= there.offset:
                return None  # it says what is known, or what something later has replaced
            kept = Published(record["encoder"], record["fingerprint"], message.offset())
            self._store.keep({product: (key, kept)})
            return product
        self._store.put(
            PartRow(
                name, key, product, record["kind"], record["encoder"], record["dimension"], record["chunk"],
                record["fingerprint"], record["event_time"], record["vector"],
            )
        )  # fmt: skip
        return product

    def _wanted(self, name: str, record: Mapping[str, Any]) -> bool:
        kind = record["kind"]
        here = name == FIRST or kind == _TEXT
        return record["subject_type"] == "product" and here and (kind in self._weights or kind == HYBRID)

    def _taken_back(self, name: str, key: str, offset: int) -> str | None:
        """Fold a tombstone of a fused vector; return whose it was."""
        product = self._store.owner_of(key) if name == FIRST else None
        if product is None or offset < self._store.published([product])[product].offset:
            return None
        self._store.forget(product)
        return product

    def _fusion(self, home: str) -> Fusion | None:
        """What the newest records are to be fused by; None while a kind has no vector."""
        parts = []
        for kind, weight in self._weights.items():
            found = self._store.encoders(home if kind == _TEXT else FIRST, kind)
            if not found:
                return None
            encoder, dimension, _ = max(found, key=lambda each: (each[2], each[0], each[1]))
            parts.append(Part(kind, encoder, dimension, weight))
        return Fusion(tuple(parts))

    def _publish_all(self, fusion: Fusion | None, home: str) -> None:
        last = ""
        while products := self._store.products(last, _TOGETHER):
            self._publish(products, fusion, home)
            last = products[-1]

    def _publish(self, products: Sequence[str], fusion: Fusion | None, home: str) -> None:
        """Publish what is not there of some products, in one transaction of Kafka."""
        held, known = self._store.held(products), self._store.published(products)
        due: dict[str, tuple[str | None, int]] = {}
        unchanged = 0
        for product in products:
            parts = [each for each in held.get(product, ()) if fusion and _in_use(each, fusion, home)]
            mark = None if fusion is None else fusion.mark([(each.kind, each.fingerprint) for each in parts])
            there = known.get(product)
            if (there.mark if there else "") == (mark or ""):
                unchanged += there is not None and mark is not None
            else:
                due[product] = mark, max((each.time_ms for each in parts), default=0)
        self._count(unchanged=unchanged)
        if not due:
            return
        rows = self._store.rows([product for product, (mark, _) in due.items() if mark is not None])
        lot = []
        for product, (mark, time_ms) in due.items():
            vector = None
            if fusion is not None and mark is not None:
                vector = fusion.fuse(_vectors(rows[product], fusion, home))
            if vector is not None and fusion is not None and mark is not None:
                lot.append(Fused(product, fusion.encoder, mark, time_ms, vector.astype("<f4").tobytes()))
            elif product in known and known[product].mark:
                lot.append(Fused(product, known[product].encoder, known[product].mark, time_ms, None))
        if not lot:
            return
        offsets = self._publisher.publish(lot)
        for each, offset in zip(lot, offsets, strict=True):
            mark = each.mark if each.vector is not None else ""
            self._sent[each.product] = key_of(each.product), Published(each.encoder, mark, offset)
        self._store.keep({each.product: self._sent[each.product] for each in lot})
        gone = sum(each.vector is None for each in lot)
        self._count(published=len(lot) - gone, deleted=gone)

    def _count(self, **outcomes: int) -> None:
        for outcome, records in outcomes.items():
            if records:
                self._meters.count(outcome, records)


def _name(fusion: Fusion | None) -> str:
    return "" if fusion is None else fusion.encoder


def _in_use(part: Held | PartRow, fusion: Fusion, home: str) -> bool:
    """Whether a part is of the encoder that counts for its kind."""
    here = part.topic == (home if part.kind == _TEXT else FIRST)
    return here and any(
        (part.kind, part.encoder, part.dimension) == (each.kind, each.encoder, each.dimension)
        for each in fusion.parts
    )


def _vectors(rows: Sequence[PartRow], fusion: Fusion, home: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        if _in_use(row, fusion, home):
            found.setdefault(row.kind, []).append(np.frombuffer(row.vector, "<f4"))
    return found


def _check(record: Mapping[str, Any], key: str) -> None:
    """Raise ContractError for what the vector view refuses, too."""
    if record["chunk_id"] != key:
        raise ContractError(f"the key is {key!r} and chunk_id is {record['chunk_id']!r}")
    if len(record["vector"]) != 4 * record["dimension"]:
        raise ContractError(f"{len(record['vector'])} bytes are not {record['dimension']} numbers")
    if not np.isfinite(np.frombuffer(record["vector"], "<f4")).all():
        raise ContractError("the vector holds a number that is not finite")
