"""Two encoders on the same texts: what the index finds of what is nearest, and how good what is found is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from connectors.kafka import ensure_topics
from connectors.registry import Registry
from connectors.vectors import Encoding, Entry
from connectors.vectors.edge import EdgeIndex
from connectors.whole import WholeTopic
from dealeriq.settings import Settings
from models.search.fields import TEXT
from models.text import Encoder
from schemas.codec import Decoder
from schemas.errors import DealerIQError

__all__ = [
    "Labelled",
    "LabelsError",
    "Vectors",
    "compared",
    "interval",
    "labels_of_file",
    "ndcg",
    "owners_ranked",
    "vectors_of",
]

Floats = np.ndarray[Any, np.dtype[np.float32]]
_READ_S = 600.0
_TOP = 10
_PUT = 2_000
_RESAMPLED = 2_000


class LabelsError(DealerIQError):
    """The file of labelled queries cannot be read, or nothing that it calls right is in both."""

    remedy = 'Give one JSON object a line: {"query": "birthday cake", "right": ["product/123", "document/7"]}.'
    exit_code = 6


@dataclass(frozen=True)
class Labelled:
    """A query, and the owners (`product/ID`) that are right for it."""

    query: str
    right: frozenset[str]


@dataclass(frozen=True)
class Vectors:
    """The newest vectors of one encoder, by chunk; `owners` names whose each is."""

    chunks: Sequence[str]
    owners: Sequence[str]
    matrix: Floats

    def of(self, chunks: Sequence[str]) -> Vectors:
        """Return those of some chunks, in their order."""
        place = {name: at for at, name in enumerate(self.chunks)}
        rows = [place[name] for name in chunks]
        return Vectors(list(chunks), [self.owners[at] for at in rows], self.matrix[rows])


def vectors_of(settings: Settings, topic: str, encoder: Encoder) -> Vectors:
    """Read an encoder's vectors of text from its home. Raises KafkaUnavailableError."""
    ensure_topics(settings.kafka, [topic])
    decoder = Decoder.of_topic(topic, Registry(settings.registry).schema)
    whole, newest = WholeTopic(settings.kafka, topic, "dealeriq-compare"), dict[str, tuple[str, Any]]()
    try:
        for message in whole.records(_READ_S):
            key = (message.key() or b"").decode(errors="replace")
            newest.pop(key, None)
            if message.value() is not None:
                record = decoder.decode(message.value())
                if record["encoder"] == encoder.identity and record["kind"] == TEXT:
                    owner = f"{record['subject_type']}/{record['subject_id']}"
                    newest[key] = owner, np.frombuffer(record["vector"], "<f4")
    finally:
        whole.close()
    rows = [vector for _, vector in newest.values()]
    matrix = np.array(rows, np.float32).reshape(len(rows), encoder.dimension)
    return Vectors(list(newest), [owner for owner, _ in newest.values()], matrix)


def labels_of_file(file: Path) -> list[Labelled]:
    """Read labelled queries. Raises LabelsError."""
    found = []
    try:
        lines = file.read_text("utf-8").splitlines()
        for line in filter(str.strip, lines):
            each = json.loads(line)
            found.append(Labelled(str(each["query"]), frozenset(map(str, each["right"]))))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise LabelsError(f"{file} cannot be read as labelled queries: {error!r}") from error
    if not found:
        raise LabelsError(f"{file} holds no query")
    return found


def ndcg(ranked: Sequence[str], right: frozenset[str]) -> float:
    """The normalised discounted cumulative gain of the first ten owners; every right one gains 1."""
    gain = sum(1 / np.log2(at + 2) for at, owner in enumerate(ranked[:_TOP]) if owner in right)
    best = sum(1 / np.log2(at + 2) for at in range(min(_TOP, len(right))))
    return float(gain / best) if best else 0.0


def compared(encoder: Encoder, vectors: Vectors, labels: Sequence[Labelled]) -> tuple[dict[str, Any], Floats]:
    """Return recall@10 of an index of these vectors against comparing all, and nDCG@10 with its interval;
    and the latter of each query.
    """
    queries = encoder.encode([each.query for each in labels])
    exact = queries @ vectors.matrix.T
    with tempfile.TemporaryDirectory(prefix="dealeriq-compare-") as folder:
        recall = _recall(Path(folder), encoder, vectors, queries, exact)
    gains = np.array(
        [ndcg(owners_ranked(row, vectors), each.right) for row, each in zip(exact, labels, strict=True)],
        np.float32,
    )
    low, high = interval(gains)
    about = {"encoder": encoder.identity, "chunks": len(vectors.chunks), "recall": recall}
    return about | {"ndcg": float(gains.mean()), "low": low, "high": high}, gains


def owners_ranked(scores: Floats, vectors: Vectors) -> list[str]:
    """The owners by their best chunk, best first: ten of them."""
    found: dict[str, None] = {}
    for at in np.argsort(-scores, kind="stable"):
        found.setdefault(vectors.owners[at])
        if len(found) == _TOP:
            break
    return list(found)


def interval(values: Floats, pick: Callable[[Any], Any] = lambda means: means) -> tuple[float, float]:
    """The 95 % interval of a mean, from bootstrap samples of the queries."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(values), (_RESAMPLED, len(values)))
    low, high = np.quantile(pick(values[drawn].mean(axis=1)), (0.025, 0.975))
    return float(low), float(high)


def _recall(folder: Path, encoder: Encoder, vectors: Vectors, queries: Floats, exact: Floats) -> float:
    kinds = {TEXT: Encoding(encoder.identity, encoder.dimension)}
    index = EdgeIndex(folder / "index", kinds, (), ())
    try:
        for start in range(0, len(vectors.chunks), _PUT):
            part = slice(start, start + _PUT)
            rows = zip(vectors.chunks[part], vectors.matrix[part], strict=True)
            index.put([Entry(name, {}, {TEXT: row}) for name, row in rows])
        hits = total = 0
        for query, scores in zip(queries, exact, strict=True):
            found = {each.id for each in index.near(TEXT, query, _TOP)}
            best = np.sort(scores)[-min(_TOP, len(scores))]
            place = {name for name, score in zip(vectors.chunks, scores, strict=True) if score >= best - 1e-6}
            hits += len(found & place)
            total += min(_TOP, len(scores))
        return min(1.0, hits / max(total, 1))
    finally:
        index.close()
