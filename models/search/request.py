"""What a search asks, and what it answers: plain data, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from models.search.fields import SearchRequestError

__all__ = ["Answer", "Hit", "SearchRequest"]

LONGEST_TEXT = 2_000
MOST_HITS = 100
_MEMBERS = ("text", "like", "image", "kinds", "dealer_id", "filters", "limit", "correct")


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search: a text, something to find the like of, a picture, or several of them.

    `like` is an owner as `product/ID`; `image` is a picture's file in base64. `kinds` are the kinds of vectors
    to search with; None: all that the index has and that what is asked has. On behalf of a `dealer_id` its own
    documents are found too. `correct`: whether misspelt words are mended.
    """

    text: str | None = None
    like: str | None = None
    image: str | None = None
    kinds: Sequence[str] | None = None
    dealer_id: str | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 10
    correct: bool = True

    def __post_init__(self) -> None:
        if not self.text and not self.like and not self.image:
            raise SearchRequestError(
                "a search needs text or like or image", remedy="Give a text, or like=product/ID."
            )
        if self.text is not None and len(self.text) > LONGEST_TEXT:
            raise SearchRequestError(
                f"text has {len(self.text)} characters, allowed are {LONGEST_TEXT}",
                remedy="Search for a sentence or two; a whole document is found by its id (like=document/ID).",
            )
        if not 1 <= self.limit <= MOST_HITS:
            raise SearchRequestError(f"limit is {self.limit}, allowed is 1 to {MOST_HITS}", remedy="Set limit.")
        if self.like is not None and not all(self.like.partition("/")):
            raise SearchRequestError(f"like is {self.like!r}", remedy="Write it as type/id: product/819063.")
        if self.kinds is not None and not self.kinds:
            raise SearchRequestError("kinds is empty", remedy="Leave kinds out, or name one at least.")

    @classmethod
    def of(cls, body: Any) -> SearchRequest:
        """Read the body of a request. Raises SearchRequestError, naming the member."""
        if not isinstance(body, dict):
            raise SearchRequestError(f"the body is {type(body).__name__}", remedy="Send an object.")
        for name, value in body.items():
            if name not in _MEMBERS:
                raise SearchRequestError(
                    f"the body has an unknown member {name!r}", remedy=f"There are {', '.join(_MEMBERS)}."
                )
            kind = {"filters": dict, "limit": int, "correct": bool, "kinds": list}.get(name, str)
            if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
                raise SearchRequestError(
                    f"{name} is of type {type(value).__name__}", remedy=f"Give {name} as {kind.__name__}."
                )
        if not all(isinstance(each, str) for each in body.get("kinds") or ()):
            raise SearchRequestError("kinds holds what is no text", remedy='Give kinds as ["text", "graph"].')
        return cls(**{name: value for name, value in body.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a hit is there, of one list: its rank in it from 1, and its score (a cosine; a sum of BM25)."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One owner that was found, by its best chunk; `text` is its name where it was found by no chunk.

    `score` is the sum over the lists of 1/(60 + rank), in `words` times the square of the share of the query's
    words that it has; and that times `weight`, what feedback says of this hit of this search; feedback names it
    by `feedback_id`. `start` and `end` are where the chunk stands in the original text, None where that is not
    known; `highlights` are the words of the query in `text`, as offsets.
    """

    type: str
    id: str
    score: float
    text: str
    chunk: int | None
    start: int | None
    end: int | None
    highlights: list[tuple[int, int]]
    fields: dict[str, Any]
    why: dict[str, Reason]
    feedback_id: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, best first, and how the search was understood: misspelt words and what was taken for them.

    `encoder` is that of texts; `kinds` are the kinds of vectors that were searched with.
    `held_out` says that feedback did not move them, so that its lift can be measured.
    """

    hits: list[Hit]
    corrected: dict[str, str]
    encoder: str
    kinds: list[str]
    took_ms: float
    held_out: bool = False

    def data(self) -> dict[str, Any]:
        """As plain data for JSON."""
        found = asdict(self)
        found["took_ms"] = round(self.took_ms, 2)
        for hit in found["hits"]:
            hit["score"] = _rounded(hit["score"])
            hit["weight"] = _rounded(hit["weight"])
            for reason in hit["why"].values():
                reason["score"] = _rounded(reason["score"])
        return found


def _rounded(score: float) -> float:
    return round(score, 6) if math.isfinite(score) else 0.0
