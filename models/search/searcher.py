"""Hybrid search: by meaning (dense cosine), by words (BM25) and by likeness of each kind, fused by rank.

Reciprocal rank fusion with k = 60: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet
and individual Rank Learning Methods" (SIGIR 2009). Ranks need no common scale of scores. What has all words of
the query counts in full, what has some of them by the square of their share: most have one word by chance, and
BM25 ranks them all the same. (Search engines of words did so for long, as the coordination of a query.)
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from connectors.vectors import AnyOf, Condition, Found, OwnOrNone, Vector, VectorIndex
from connectors.vectors.lexical import Lexical
from models.image import ImageEncoder
from models.search.adapter import VectorMap
from models.search.fields import CHUNK, IMAGE, TEXT, SearchRequestError, conditions
from models.search.likeness import alike
from models.search.request import Answer, Hit, Reason, SearchRequest
from models.search.vocabulary import Vocabulary, words
from models.search.weights import Weights, feedback_id, picture_key, search_key
from models.text import Encoder, EncoderUnavailableError
from schemas.errors import ContractError

__all__ = ["Adapted", "Searcher", "fuse"]

_RANK = 60
_DEEPER = 5  # entries asked for each hit wanted: several chunks of one owner make one hit
_LEAST_DEPTH = 50
_WIDER = 4  # times as many are looked at where a query is adapted: its own order is the worse one
_KEPT = frozenset(
    (
        "entry", "owner", "type", "text", "subject_id", "chunk", "start", "end", "live", "offset",
        "fingerprint", "encoder", "topic",
    )
)  # fmt: skip
_OFFERED = ("product", "document")
"""What is found where no type is asked for; dealers are found as the like of a dealer."""


def fuse(
    lists: Mapping[str, Sequence[str]], weights: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, float]:
    """Return the fused score of everything in any of the ranked lists, best first; ties by name.

    `weights` has for a list what something in it counts; 1 where it is not named.
    """
    scores: dict[str, float] = {}
    for each, ranked in lists.items():
        counts = (weights or {}).get(each, {})
        for rank, name in enumerate(ranked, 1):
            scores[name] = scores.get(name, 0.0) + counts.get(name, 1.0) / (_RANK + rank)
    return dict(sorted(scores.items(), key=lambda each: (-each[1], each[0])))


@dataclass(frozen=True)
class Adapted:
    """An encoder to come, and the map by which its queries search an index of the one in use."""

    encoder: Encoder
    map: VectorMap


class Searcher:
    """Searches one index with the encoders whose vectors it holds. Threads may share it.

    Where texts and pictures have one encoder (CLIP), a text finds pictures, too.
    """

    def __init__(
        self,
        index: VectorIndex,
        encoder: Encoder,
        vocabulary: Vocabulary,
        weights: Weights | None = None,
        images: ImageEncoder | None = None,
    ) -> None:
        self.index, self.encoder, self._vocabulary, self._images = index, encoder, vocabulary, images
        self._of_texts = [
            kind for kind, each in index.kinds.items() if kind == IMAGE and each.encoder == encoder.identity
        ]
        self.weights = Weights() if weights is None else weights
        self._lexical = Lexical()
        self.adapted: Adapted | None = None
        """Set it, and queries are encoded by the encoder to come."""

    def search(self, request: SearchRequest) -> Answer:
        """Return what is found. Raises SearchRequestError, NothingLikeItError, IndexUnavailableError."""
        began = time.perf_counter()
        wanted: list[Condition] = [
            AnyOf("live", ["true"]),
            OwnOrNone("dealer_id", request.dealer_id),
            *conditions(request.filters),
        ]
        kinds = self._kinds(request)
        text, corrected = self._corrected(request)
        depth = max(_LEAST_DEPTH, _DEEPER * request.limit)
        found: dict[str, list[Found]] = {}
        if text:
            # A text of nothing that a word is made of has no meaning to search for.
            pictured = IMAGE in kinds and IMAGE in self._of_texts
            vector = self.encoder.encode([text])[0] if pictured else None
            if TEXT in kinds:
                found["meaning"] = self.meaning(text, depth, wanted, vector)
                found["words"] = self.index.matching(self._lexical.query(text), depth, wanted)
            if vector is not None:
                found["pictures"] = self.index.near(IMAGE, vector, depth, wanted)
        if request.like is not None:
            kind = request.like.partition("/")[0]
            types = [AnyOf("type", [kind] if kind not in _OFFERED else _OFFERED)]
            if "type" in request.filters or kinds == [TEXT]:
                types = []
            chosen = request.kinds is not None
            found |= alike(self.index, request.like, kinds, depth, [*wanted, *types], whole=not chosen)
        if request.image is not None:
            found["image"] = self.index.near(IMAGE, self._picture(request.image, kinds), depth, wanted)
        asked = ((request.like or "") + picture_key(request.image)) or None
        key = search_key(self._lexical.query(text).terms if text else (), asked)
        held_out = self.weights.held_out(request.dealer_id, key)
        hits = self._hits(found, request, text, key, held_out)
        took_ms = (time.perf_counter() - began) * 1000
        used = [
            each
            for each in kinds
            if f"like-{each}" in found
            or (each == TEXT and "meaning" in found)
            or (each == IMAGE and {"image", "pictures"} & found.keys())
        ]
        return Answer(hits, corrected, self.encoder.identity, used, took_ms, held_out)

    def _picture(self, content: str, kinds: Sequence[str]) -> Vector:
        """The vector of a picture. Raises SearchRequestError."""
        if self._images is None or IMAGE not in kinds:
            raise SearchRequestError(
                "a picture is searched for with the kind image, which this search has not",
                remedy=f"It has {', '.join(kinds)}; image.model names an encoder, search.kinds what is held.",
            )
        try:
            pixels = self._images.read(base64.b64decode(content, validate=True))
        except (ValueError, ContractError) as error:
            told = str(error) if isinstance(error, ContractError) else "the image is not base64"
            raise SearchRequestError(told, remedy="Give a still picture's file in base64.") from error
        vector: Vector = self._images.encode([pixels])[0]
        return vector

    def _kinds(self, request: SearchRequest) -> list[str]:
        """The kinds to search with. Raises SearchRequestError for one that cannot be."""
        held = list(self.index.kinds)
        if request.kinds is None:
            return held
        if missing := [each for each in request.kinds if each not in held]:
            raise SearchRequestError(
                f"the index holds no vectors of kind {', '.join(missing)}",
                remedy=f"It has {', '.join(held)}; search.kinds names what it holds.",
            )
        if request.text and not {TEXT, *self._of_texts} & {*request.kinds}:
            raise SearchRequestError(
                f"a text has no vector of kind {', '.join(request.kinds)}",
                remedy="Add the kind text, or search for the like of something alone.",
            )
        return [each for each in held if each in request.kinds]

    def meaning(
        self, text: str, depth: int, wanted: Sequence[Condition], vector: Vector | None = None
    ) -> list[Found]:
        """What lies nearest in meaning; by the encoder to come, where its queries are adapted to this index.

        `vector` is the text's by the encoder in use, where it is known.
        """
        if self.adapted is not None:
            try:
                return self._adapted(self.adapted, text, depth, wanted)
            except EncoderUnavailableError:  # the encoder in use is still there
                pass
        if vector is None:
            vector = self.encoder.encode([text])[0]
        return self.index.near(TEXT, vector, depth, wanted)

    def _adapted(self, adapted: Adapted, text: str, depth: int, wanted: Sequence[Condition]) -> list[Found]:
        """Look near the adapted query, and rank what is there as the encoder to come would."""
        vector = adapted.encoder.encode([text])[0]
        near = self.index.near(TEXT, adapted.map.query(vector), _WIDER * depth, wanted)
        held = self.index.get([each.id for each in near], vectors=True)
        near = [each for each in near if each.id in held]
        if not near:
            return []
        scores = adapted.map.scores(vector, np.stack([held[each.id].dense[TEXT] for each in near]))
        order = np.argsort(-scores, kind="stable")[:depth]
        return [Found(near[at].id, float(scores[at]), near[at].fields) for at in order]

    def _corrected(self, request: SearchRequest) -> tuple[str, dict[str, str]]:
        """The text with misspelt words mended, and which they were."""
        text = request.text or ""
        if not any(map(str.isalnum, text)):
            if request.like is None and request.image is None:
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

    def _texts(self, owners: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What to show of owners that were found by another kind: the first chunk of each, else its name."""
        if not owners:
            return {}
        found: dict[str, dict[str, Any]] = {owner: {"text": owner.partition("/")[2]} for owner in owners}
        firsts = sorted(
            self.index.scan([AnyOf("entry", [CHUNK]), AnyOf("owner", owners)]),
            key=lambda each: each.fields.get("chunk", 0), reverse=True,
        )  # fmt: skip
        found |= {each.fields["owner"]: each.fields for each in firsts}
        return found

    def _hits(
        self, found: Mapping[str, list[Found]], request: SearchRequest, text: str, key: str, held_out: bool
    ) -> list[Hit]:
        """One hit an owner: the rank of an owner in a list is that of its best chunk."""
        stems = set(self._lexical.query(text).terms) if text else set()
        best: dict[str, Found] = {}
        ranked: dict[str, list[str]] = {}
        shares: dict[str, float] = {}
        reasons: dict[str, dict[str, Reason]] = {}
        for name, entries in found.items():
            for each in entries:
                owner = each.fields["owner"]
                if name in reasons.setdefault(owner, {}):
                    continue
                ranked.setdefault(name, []).append(owner)
                reasons[owner][name] = Reason(len(ranked[name]), each.score)
                if name == "words":
                    held = stems.intersection(self._lexical.document(each.fields["text"]).terms)
                    shares[owner] = (len(held) / len(stems)) ** 2
                if owner not in best or "text" not in best[owner].fields:
                    best[owner] = each
        fused = fuse(ranked, {"words": shares})
        weights = {owner: 1.0 if held_out else self.weights.weight(key, owner) for owner in fused}
        weighted = ((owner, score * weights[owner]) for owner, score in fused.items())
        scores = sorted(weighted, key=lambda each: (-each[1], each[0]))[: request.limit]
        asked = {word for word, _, _ in words(text)}
        texts = self._texts([owner for owner, _ in scores if "text" not in best[owner].fields])
        hits = []
        for owner, score in scores:
            entry = best[owner].fields | texts.get(owner, {})
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
