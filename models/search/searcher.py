"""Hybrid search: by meaning (dense cosine) and by words (BM25), fused by rank.

Reciprocal rank fusion with k = 60: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet
and individual Rank Learning Methods" (SIGIR 2009). Ranks need no common scale of scores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from connectors.vectors import AnyOf, Condition, Found, OwnOrNone, VectorIndex
from connectors.vectors.lexical import Lexical
from models.search.fields import CHUNK, TEXT, SearchRequestError, conditions
from models.search.request import Answer, Hit, Reason, SearchRequest
from models.search.vocabulary import Vocabulary, words
from models.search.weights import Weights, feedback_id, search_key
from models.text import Encoder

__all__ = ["NothingLikeItError", "Searcher", "fuse"]

_RANK = 60
_DEEPER = 5  # entries asked for each hit wanted: several chunks of one owner make one hit
_LEAST_DEPTH = 50
_KEPT = frozenset(
    ("entry", "owner", "type", "text", "subject_id", "chunk", "start", "end", "live", "offset", "fingerprint")
)


class NothingLikeItError(SearchRequestError):
    """What the like of is asked for is not in the index."""

    remedy = "Search for it by text first; a new product is in the index within seconds."


def fuse(lists: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the fused score of everything in any of the ranked lists, best first; ties by name."""
    scores: dict[str, float] = {}
    for ranked in lists.values():
        for rank, name in enumerate(ranked, 1):
            scores[name] = scores.get(name, 0.0) + 1 / (_RANK + rank)
    return dict(sorted(scores.items(), key=lambda each: (-each[1], each[0])))


class Searcher:
    """Searches one index with the encoder whose vectors it holds. Threads may share it."""

    def __init__(
        self, index: VectorIndex, encoder: Encoder, vocabulary: Vocabulary, weights: Weights | None = None
    ) -> None:
        self.index, self.encoder, self._vocabulary = index, encoder, vocabulary
        self.weights = Weights() if weights is None else weights
        self._lexical = Lexical()

    def search(self, request: SearchRequest) -> Answer:
        """Return what is found. Raises SearchRequestError, NothingLikeItError, IndexUnavailableError."""
        began = time.perf_counter()
        wanted: list[Condition] = [
            AnyOf("live", ["true"]),
            OwnOrNone("dealer_id", request.dealer_id),
            *conditions(request.filters),
        ]
        text, corrected = self._corrected(request)
        depth = max(_LEAST_DEPTH, _DEEPER * request.limit)
        found: dict[str, list[Found]] = {}
        if text:
            # A text of nothing that a word is made of has no meaning to search for.
            vector = self.encoder.encode([text])[0]
            found["meaning"] = self.index.near(TEXT, vector, depth, wanted)
            found["words"] = self.index.matching(self._lexical.query(text), depth, wanted)
        if request.like is not None:
            found["like"] = self._like(request.like, depth, wanted)
        key = search_key(self._lexical.query(text).terms if text else (), request.like)
        held_out = self.weights.held_out(request.dealer_id, key)
        hits = self._hits(found, request, text, key, held_out)
        took_ms = (time.perf_counter() - began) * 1000
        return Answer(hits, corrected, self.encoder.identity, took_ms, held_out)

    def _like(self, name: str, depth: int, wanted: Sequence[Condition]) -> list[Found]:
        """What lies nearest to the middle of an owner's chunks, itself left out."""
        chunks = [AnyOf("entry", [CHUNK]), AnyOf("owner", [name])]
        vectors = [each.dense[TEXT] for each in self.index.scan(chunks, vectors=True)]
        if not vectors:
            raise NothingLikeItError(f"nothing in the index is called {name}")
        middle = np.mean(vectors, axis=0).astype(np.float32)
        near = self.index.near(TEXT, middle, depth + len(vectors), wanted)
        return [each for each in near if each.fields["owner"] != name]

    def _corrected(self, request: SearchRequest) -> tuple[str, dict[str, str]]:
        """The text with misspelt words mended, and which they were."""
        text = request.text or ""
        if not any(map(str.isalnum, text)):
            if request.like is None:
                raise SearchRequestError(
                    "text holds no letter and no digit", remedy="Search for words, or give like=product/ID."
                )
            return "", {}
        if not request.correct:
            return text, {}
        corrected: dict[str, str] = {}
        pieces, at = [], 0
        for word, start, end in words(text):
            meant = self._vocabulary.correct(word)
            if meant is not None:
                corrected[text[start:end]] = meant
                pieces += [text[at:start], meant]
                at = end
        return "".join([*pieces, text[at:]]), corrected

    def _hits(
        self, found: Mapping[str, list[Found]], request: SearchRequest, text: str, key: str, held_out: bool
    ) -> list[Hit]:
        """One hit an owner: the rank of an owner in a list is that of its best chunk."""
        best: dict[str, Found] = {}
        ranked: dict[str, list[str]] = {}
        reasons: dict[str, dict[str, Reason]] = {}
        for name, entries in found.items():
            for each in entries:
                owner = each.fields["owner"]
                if name in reasons.setdefault(owner, {}):
                    continue
                ranked.setdefault(name, []).append(owner)
                reasons[owner][name] = Reason(len(ranked[name]), each.score)
                best.setdefault(owner, each)
        fused = fuse(ranked)
        weights = {owner: 1.0 if held_out else self.weights.weight(key, owner) for owner in fused}
        weighted = ((owner, score * weights[owner]) for owner, score in fused.items())
        scores = sorted(weighted, key=lambda each: (-each[1], each[0]))[: request.limit]
        asked = {word for word, _, _ in words(text)}
        stems = set(self._lexical.query(text).terms) if text else set()
        hits = []
        for owner, score in scores:
            entry = best[owner].fields
            marked = [
                (start, end)
                for word, start, end in words(entry["text"])
                if word in asked or stems.intersection(self._lexical.query(word).terms)
            ]
            told = feedback_id(key, owner), weights[owner]
            hits.append(_hit(entry, score, reasons[owner], marked, request.dealer_id, told))
        return hits


def _hit(
    entry: dict[str, Any],
    score: float,
    why: dict[str, Reason],
    highlights: list[tuple[int, int]],
    dealer_id: str | None,
    told: tuple[str, float],
) -> Hit:
    shown = {name: value for name, value in entry.items() if name not in _KEPT and value is not None}
    dealers = shown.pop("stocked_by", None)
    if dealer_id is not None and dealers is not None:
        shown["in_stock"] = dealer_id in dealers
    place = (entry.get("chunk"), entry.get("start"), entry.get("end"))
    return Hit(entry["type"], entry["subject_id"], score, entry["text"], *place, highlights, shown, why, *told)
