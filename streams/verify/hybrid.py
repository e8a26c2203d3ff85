"""Fused vectors against their parts: each is computed again from the newest records of the topics.

The process says with its group's offsets up to where everything is published. A product of which something came
since is left out; where the encoders in use changed since, all are. The computation is a plain one of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from connectors.registry import Registry
from models.embedding.topics import FIRST, TOPICS
from models.fusion import HYBRID, Fusion, Part
from schemas.codec import Decoder
from schemas.errors import ContractError
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding
from streams.verify.messages import Message, messages

__all__ = ["HybridCheck", "HybridSource", "verify_hybrid"]

_TEXT = "text"
_SAME = 0.9999  # cosine, as of the index
_SAMPLED = 2_000  # records kept of a sample, about

_Uses = dict[tuple[str, str], tuple[str, str, int]]
"""(topic, key) → kind, encoder and dimension of a part."""


@dataclass(frozen=True)
class HybridSource:
    """What the process is given: the weight of each kind, the text's first; its consumer group; and a function
    that returns the topic of the text encoder in use.
    """

    weights: Mapping[str, float]
    group: str
    home: Callable[[], str]


@dataclass
class HybridCheck:
    """How many products were compared, how many were on their way, and what was found."""

    products: int = 0
    moving: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Log:
    """The newest records of the products that are looked at, and which encoders there are."""

    records: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    before: _Uses = field(default_factory=dict)
    now: _Uses = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)


def verify_hybrid(
    source: HybridSource, broker: Broker, registry: Registry, *, sampled: bool, pause: Callable[[], None]
) -> HybridCheck:
    """Compare every product's fused vector, or about a thousand. Raises KafkaUnavailableError, redis errors."""
    check = HybridCheck()
    home = source.home()
    done = {name: broker.committed(source.group, name) for name in TOPICS}
    ends = {name: broker.ends(name) for name in TOPICS}
    share = max(1, sum(map(sum, (each.values() for each in ends.values()))) // _SAMPLED) if sampled else 1
    log = _Log()
    for name in TOPICS:
        _read(log, source.weights, broker, registry, name, ends[name], done[name], share, pause)
    fusion = _fusion(source.weights, log.now, home)
    if not any(any(each.values()) for each in done.values()):
        check.notes.append(f"{source.group} has not said how far it is: no fused vector was compared")
        return check
    if home != source.home() or _fusion(source.weights, log.before, home) != fusion:
        check.notes.append("an encoder took another's place meanwhile: no fused vector was compared")
        return check
    parts: dict[str, list[dict[str, Any]]] = {}
    fused: dict[str, dict[str, Any]] = {}
    for (name, _), record in log.records.items():
        if record["kind"] == HYBRID:
            fused[record["subject_id"]] = record
        elif name == (home if record["kind"] == _TEXT else FIRST):
            parts.setdefault(record["subject_id"], []).append(record)
    for product in sorted(parts.keys() | fused.keys()):
        if product in log.moving:
            check.moving += 1
            continue
        check.products += 1
        wanted = None if fusion is None else _vector(fusion, parts.get(product, ()))
        check.findings += _compare(product, fusion, wanted, fused.get(product))
    return check


def _read(
    log: _Log,
    weights: Mapping[str, float],
    broker: Broker,
    registry: Registry,
    topic: str,
    ends: Ends,
    done: Ends,
    share: int,
    pause: Callable[[], None],
) -> None:
    decoder = Decoder.of_topic(topic, registry.schema)
    for each in messages(broker, topic, ends, pause):
        late = each.offset >= done.get(each.partition, 0)
        place = topic, each.key
        log.records.pop(place, None)
        for uses in (log.now,) if late else (log.now, log.before):
            uses.pop(place, None)
        if late and place in log.owners:
            log.moving.add(log.owners[place])
        record = None if each.value is None else _part(decoder, each, weights, topic)
        if record is None:
            continue
        product = record["subject_id"]
        if record["kind"] != HYBRID:
            use = record["kind"], record["encoder"], record["dimension"]
            for uses in (log.now,) if late else (log.now, log.before):
                uses[place] = use
        if share == 1 or xxh3_64_intdigest(product.encode()) % share == 0:
            log.records[place], log.owners[place] = record, product
            if late:
                log.moving.add(product)


def _part(decoder: Decoder, each: Message, weights: Mapping[str, float], topic: str) -> dict[str, Any] | None:
    """The record, where it is a part of a product or its fused vector."""
    try:
        record = decoder.decode(each.value)
    except ContractError:
        return None  # it is a dead letter
    kind = record["kind"]
    here = topic == FIRST or kind == _TEXT
    whole = record["chunk_id"] == each.key and len(record["vector"]) == 4 * record["dimension"]
    wanted = kind in weights or kind == HYBRID
    return record if here and whole and wanted and record["subject_type"] == "product" else None


def _fusion(weights: Mapping[str, float], uses: _Uses, home: str) -> Fusion | None:
    parts = []
    for kind, weight in weights.items():
        topic = home if kind == _TEXT else FIRST
        counts = Counter(use[1:] for (name, _), use in uses.items() if name == topic and use[0] == kind)
        if not counts:
            return None
        encoder, dimension = max(counts, key=lambda each: (counts[each], *each))
        parts.append(Part(kind, encoder, dimension, weight))
    return Fusion(tuple(parts))


def _vector(fusion: Fusion, parts: Any) -> Any:
    """What the parts give; None for a product without a text."""
    blocks = []
    for each in fusion.parts:
        own = [
            np.frombuffer(record["vector"], "<f4").astype(np.float64)
            for record in parts
            if (record["kind"], record["encoder"], record["dimension"])
            == (each.kind, each.encoder, each.dimension)
        ]
        total = np.sum(own, axis=0) if own else np.zeros(each.dimension)
        length = float(np.linalg.norm(total)) if own else 0.0
        if each.kind == _TEXT and length == 0:
            return None
        blocks.append(total * (each.weight**0.5 / length if length else 0.0))
    return np.concatenate(blocks)


def _compare(product: str, fusion: Fusion | None, wanted: Any, record: Any) -> Iterator[Finding]:
    def finding(kind: Any, expected: Any, found: Any) -> Finding:
        return Finding(kind, "topic", FIRST, (f"product/{product}", HYBRID), "vector", "", expected, found)

    if wanted is None:
        if record is not None:
            yield finding("extra-vector", "none", record["encoder"])
        return
    assert fusion is not None
    if record is None:
        yield finding("missing-vector", fusion.encoder, None)
    elif record["encoder"] != fusion.encoder:
        yield finding("vector", fusion.encoder, record["encoder"])
    else:
        own = np.frombuffer(record["vector"], "<f4").astype(np.float64)
        lengths = float(np.linalg.norm(own) * np.linalg.norm(wanted))
        cosine = float(own @ wanted) / lengths if own.shape == wanted.shape and lengths else -1.0
        if not cosine >= _SAME:
            yield finding("vector", "what its parts give", f"cosine {cosine:.4f}")
