"""A log of parts and of the vectors that they are fused into, and what is to stand there, computed apart."""

from collections import Counter

import numpy as np
from vector_world import Log, fetch

from models.embedding.topics import FIRST
from models.fusion import HYBRID, Fusion, Part
from schemas.ids import event_id
from streams.hybrid.publisher import key_of

WEIGHTS = {"text": 1.0, "graph": 4.0}
DIMENSIONS = {"text": 4, "graph": 3, "image": 2}

__all__ = ["DIMENSIONS", "WEIGHTS", "Crash", "LogPublisher", "chunk_key", "expected", "fetch", "newest", "part"]


class Crash(Exception):  # noqa: N818
    """The process died here."""


def chunk_key(product: str, kind: str, number: int = 0) -> str:
    return event_id(kind, product, number)


def part(product, kind, seed, *, encoder=None, number=0, **more):
    size = DIMENSIONS[kind]
    vector = np.random.default_rng(seed).standard_normal(size).astype("<f4")
    return {
        "chunk_id": chunk_key(product, kind, number), "subject_type": "product", "subject_id": product,
        "chunk": number, "kind": kind, "encoder": encoder or f"{kind}@1", "dimension": size,
        "vector": (vector / np.linalg.norm(vector)).tobytes(), "fingerprint": f"f{seed}",
        "text": f"{product} {seed}" if kind == "text" else None, "dealer_id": None,
        "event_time": 1_500_000_000_000 + seed,
    } | more  # fmt: skip


class LogPublisher:
    """Appends to the log; `crash` dies before a lot is there (1), or right behind it (2), at the given turn."""

    def __init__(self, log: Log, crashes: dict[int, int] | None = None):
        self.log, self.crashes, self.turn = log, crashes or {}, 0

    def open(self):
        pass

    def publish(self, lot):
        self.turn += 1
        how = self.crashes.pop(self.turn, 0)
        if how == 1:
            raise Crash
        offsets = []
        for each in lot:
            key = key_of(each.product)
            record = None
            if each.vector is not None:
                record = {
                    "chunk_id": key, "subject_type": "product", "subject_id": each.product, "chunk": 0,
                    "kind": HYBRID, "encoder": each.encoder, "dimension": len(each.vector) // 4,
                    "vector": each.vector, "fingerprint": each.mark, "text": None, "dealer_id": None,
                    "event_time": each.time_ms,
                }  # fmt: skip
            self.log.add(FIRST, key, record)
            offsets.append(self.log.partitions[FIRST, sum(key.encode()) % 2][-1].offset())
        if how == 2:
            raise Crash
        return offsets


def newest(log: Log) -> dict[tuple[str, str], dict]:
    """The newest record of each key, by topic."""
    found = {}
    for (name, _), messages in log.partitions.items():
        for each in messages:
            key = name, each.key().decode()
            found.pop(key, None)
            if each.record is not None:
                found[key] = each.record
    return found


def expected(log: Log, home: str = FIRST) -> dict[str, tuple[str, np.ndarray]]:
    """What is to be published of each product, by a plain computation over the newest records."""
    parts = [
        each
        for (name, _), each in newest(log).items()
        if each["kind"] in WEIGHTS and name == (home if each["kind"] == "text" else FIRST)
    ]
    in_use = []
    for kind, weight in WEIGHTS.items():
        counts = Counter((each["encoder"], each["dimension"]) for each in parts if each["kind"] == kind)
        if not counts:
            return {}
        (encoder, size), _ = max(counts.items(), key=lambda each: (each[1], each[0]))
        in_use.append(Part(kind, encoder, size, weight))
    space = Fusion(tuple(in_use)).encoder
    found = {}
    for product in {each["subject_id"] for each in parts}:
        blocks = []
        for kind, encoder, size, weight in ((p.kind, p.encoder, p.dimension, p.weight) for p in in_use):
            own = [
                np.frombuffer(each["vector"], "<f4").astype(float)
                for each in parts
                if (each["subject_id"], each["kind"], each["encoder"]) == (product, kind, encoder)
            ]
            middle = sum(own) / len(own) if own else np.zeros(size)
            blocks.append(weight**0.5 * middle / (np.linalg.norm(middle) or 1.0))
        if blocks[0].any():
            beside = np.concatenate(blocks)
            found[product] = space, beside / np.linalg.norm(beside)
    return found
