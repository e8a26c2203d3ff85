"""What a dealer orders, as a vector: dealers who order alike lately are near.

A dealer's vector is the sum over the products that it ever ordered of 2^-(age / half-life) times a random
vector of signs that the product's name alone decides, scaled to length 1: random indexing (Kanerva,
Kristoferson and Holst, "Random Indexing of Text Samples for Latent Semantic Analysis", 2000). The cosine of two
such vectors is that of the two decayed sets of products, within about 1/sqrt(dimension) (Johnson and
Lindenstrauss, 1984).
Nothing is trained, so a new product or dealer changes no other vector. The age is measured from the dealer's
own newest order, so the vector of a dealer who is silent stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

from models.recommend.decay import Decay
from models.recommend.records import known_of
from models.recommend.settings import RecommendSettings
from streams.publishing import SubjectVector, VectorPublisher, moved
from streams.recommend.store import RecommendStore

__all__ = ["BehaviourEmbedder", "BehaviourRun", "behaviour_vector"]

VERSION = 1
"""Of what this module does: another one makes every vector new."""
_DEALERS = 200  # read, computed and sent together
_PART = 4_096  # products whose signs are in memory at once
_MARK = 8  # bytes of the digest in front of what was published


@dataclass
class BehaviourRun:
    """What one run did, in dealers. `deleted` is 0: a dealer who ordered once keeps its vector."""

    encoder: str
    published: int = 0
    unchanged: int = 0
    deleted: int = 0
    seconds: float = 0.0


def behaviour_vector(known: NDArray[Any], decay: Decay, dimension: int) -> NDArray[np.float32] | None:
    """Return a dealer's vector, of length 1; None for one that never ordered.

    Args:
        known: what it has (`records.KNOWN`).
        decay: how fast what was ordered is forgotten.
        dimension: a multiple of 64.
    """
    ordered = known[known["ordered"] > 0]
    if not len(ordered):
        return None
    last = ordered["ordered"].astype(np.int64)
    weights = decay.weight(last.max() - last)
    total = np.zeros(dimension)
    for start in range(0, len(ordered), _PART):
        part = slice(start, start + _PART)
        total += weights[part] @ _signs(ordered["product"][part], dimension)
    length = float(np.linalg.norm(total))
    return (total / length).astype(np.float32) if length > 0 else None


def behaviour_encoder(settings: RecommendSettings) -> str:
    """Return the identity under which vectors of behaviour are published with these settings."""
    return f"behaviour-{settings.behaviour_dimension}@{VERSION}.{settings.half_life_days:g}d"


class BehaviourEmbedder:
    """Computes the vectors of dealers whose orders changed, and publishes those that moved.

    What is published stands in Redis, beside a digest of the orders that it is of, and is written after Kafka
    has it: a crash publishes at most the batch in flight again. Redis errors pass through.
    """

    def __init__(self, store: RecommendStore, settings: RecommendSettings, publisher: VectorPublisher) -> None:
        self._store, self._settings, self._publisher = store, settings, publisher
        self._decay = Decay(settings.half_life_days)
        self.encoder = behaviour_encoder(settings)

    def run(self) -> BehaviourRun:
        """Publish what changed. Raises KafkaUnavailableError."""
        began, run = time.monotonic(), BehaviourRun(self.encoder)
        for dealers in self._batches():
            self._batch(dealers, run)
        run.seconds = time.monotonic() - began
        return run

    def _batches(self) -> Iterator[list[str]]:
        waiting: list[str] = []
        for each in self._store.ordering():
            waiting.append(each)
            if len(waiting) == _DEALERS:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _batch(self, dealers: list[str], run: BehaviourRun) -> None:
        states = self._store.dealers(dealers)
        sent: list[SubjectVector] = []
        kept: dict[str, bytes] = {}
        own = self.encoder.encode() + b"\0"
        for dealer, before, state in zip(dealers, self._store.behaviours(dealers), states, strict=True):
            known, orders, _ = state
            mark = xxh3_64_digest(own + (orders or b""))
            held = before or b""
            if held[:_MARK] == mark:
                run.unchanged += 1
                continue
            vector = behaviour_vector(known_of(known), self._decay, self._settings.behaviour_dimension)
            if vector is None:
                continue
            packed = vector.astype("<f4").tobytes()
            published = held[_MARK + len(own) :] if held[_MARK:].startswith(own) else b""
            if published and not moved(packed, published, self._settings.behaviour_tolerance):
                run.unchanged += 1
                packed = published
            else:
                sent.append(SubjectVector("dealer", dealer, packed, self.encoder))
            kept[dealer] = mark + own + packed
        if sent:
            self._publisher.publish(sent)
        self._store.keep_behaviours(kept)
        run.published += len(sent)


def _signs(products: NDArray[np.uint64], dimension: int) -> NDArray[np.float64]:
    """Return [products, dimension] of 1 and -1: bits of SplitMix64 (Steele, Lea and Flood, 2014) of each."""
    steps = np.arange(1, dimension // 64 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = products.astype(np.uint64)[:, None] + steps[None, :]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    bits = np.unpackbits(np.ascontiguousarray(mixed.astype("<u8")).view(np.uint8), axis=1)
    return bits.astype(np.float64) * 2.0 - 1.0
