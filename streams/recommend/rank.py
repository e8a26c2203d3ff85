"""From what is stored to what a dealer is recommended, and why.

Candidates are ranked by their plain score, or by the model that the view offers (`ranker.py`). Where that fills
no page, what is popular follows: in the category that is asked for, or in the dealer's region, or everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.recommend.candidates import Candidates, Reading, ranked
from models.recommend.decay import EPOCH_S
from models.recommend.records import Items, fields_of, known_of
from models.recommend.settings import RecommendSettings
from streams.recommend.store import Keys

__all__ = ["Ranker", "Ranking", "Recommendation", "Recommendations", "Why"]

Commands = list[tuple[Any, ...]]
Products = NDArray[np.uint64]

_REASONS = 3


@dataclass(frozen=True, slots=True)
class Why:
    """Why a product is recommended: what it is bought with, by how many dealers (decayed) it was taken up, and
    where it is popular.
    """

    bought_with: tuple[str, ...]
    taken_up: float
    popular_in: str | None

    @property
    def text(self) -> str:
        """The same in words."""
        parts = [f"bought with {', '.join(self.bought_with)}"] if self.bought_with else []
        if self.taken_up >= 0.5:
            count = round(self.taken_up)
            parts.append(f"taken up by {count} dealer{'s' if count > 1 else ''} lately")
        if self.popular_in is not None:
            parts.append(f"popular in {self.popular_in}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One product, the best first."""

    product_id: str
    category: str
    score: float
    why: Why


@dataclass(frozen=True, slots=True)
class Recommendations:
    """What a dealer is recommended. `at_ms` is the newest event folded; `known` whether the dealer ordered;
    `model_version` what ranked them, None for the plain score.
    """

    dealer_id: str
    at_ms: int
    known: bool
    items: list[Recommendation]
    model_version: str | None = None


class Ranker(Protocol):
    """What ranks candidates in the place of their plain score; `ModelRanker` is the model."""

    @property
    def version(self) -> str:
        """What it is called in an answer."""

    def at(self, now_s: int) -> Callable[[Mapping[str, NDArray[np.float64]]], NDArray[np.float64]]:
        """Return what scores `Candidates.columns` as of a time, s since 2000."""


class Ranking:
    """Ranks for one project; `steps` does no input or output itself, so that any kind of client can run it."""

    def __init__(self, project: str, settings: RecommendSettings | None = None) -> None:
        self.keys, self._settings = Keys(project), settings or RecommendSettings()

    def steps(
        self, dealer_id: str, limit: int, category: str | None = None, ranker: Ranker | None = None
    ) -> Generator[Commands, list[Any], Recommendations]:
        """Yield Redis commands that go together, be sent their replies, and return the recommendations.

        `ranker` ranks for a dealer that has ordered before; there is nothing that it has learnt of another.
        """
        keys = self.keys
        names = ["uptake", "orders"] if category is None else ["uptake", f"category:{category}"]
        pieces, told, (uptake, popular) = yield [
            ("LRANGE", keys.known(dealer_id), 0, -1),
            ("HGET", keys.regions, dealer_id),
            ("HMGET", keys.lists, *names),
        ]
        reading = Reading(known_of(b"".join(pieces)), uptake, popular, self._settings)
        seeds, region = reading.seeds, (told or b"").decode().partition(" ")[2]
        commands: Commands = [("HMGET", keys.items, *fields_of(seeds))] if len(seeds) else []
        if region:
            commands.append(("HGET", keys.lists, f"region:{region}"))
        replies = (yield commands) if commands else []
        wanted = reading.wanted(
            Items.unpack(seeds, replies[0] if len(seeds) else []), replies[-1] if region else None
        )
        favourites = {f"category {category}" if category else "every region": reading.popular}
        if region and category is None:
            favourites = {f"region {region}": reading.regional, **favourites}
        replies = (yield [("HMGET", keys.items, *fields_of(wanted))]) if len(wanted) else [[]]
        candidates = reading.candidates(Items.unpack(wanted, replies[0]))
        if not len(seeds):
            ranker = None
        chosen = _chosen(candidates, favourites.values(), limit, category, ranker, reading.now_s)
        found = [_told(candidates, row, score, favourites) for row, score in chosen]
        version = None if ranker is None else ranker.version
        return Recommendations(dealer_id, (reading.now_s + EPOCH_S) * 1000, len(seeds) > 0, found, version)


def _told(candidates: Candidates, row: int, score: float, favourites: Mapping[str, Products]) -> Recommendation:
    product, name = candidates.items.products[row], candidates.items.name(row)
    places = (place for place, some in favourites.items() if product in some)
    return Recommendation(
        name.product_id,
        name.category,
        round(score, 6),
        Why(
            tuple(candidates.with_what(row, _REASONS)),
            round(float(candidates.uptake[row]), 2),
            next(places, None),
        ),
    )


def _chosen(
    candidates: Candidates,
    popular: Iterable[Products],
    limit: int,
    category: str | None,
    ranker: Ranker | None,
    now_s: int,
) -> list[tuple[int, float]]:
    """Rows of the recommendations with their scores: the best, then what is popular."""
    items = candidates.items
    fits = np.array([bool(tail) for tail in items.tails], np.bool_)
    if category is not None:
        fits[fits] = [items.name(row).category == category for row in np.flatnonzero(fits).tolist()]
    rows, scores = ranked(candidates, fits, None if ranker is None else ranker.at(now_s))
    chosen = list(zip(rows[:limit].tolist(), scores[:limit].tolist(), strict=True))
    taken = {row for row, _ in chosen}
    for products in popular:
        at = np.searchsorted(items.products, products)
        for row, product in zip(at.tolist(), products.tolist(), strict=True):
            if len(chosen) >= limit:
                return chosen
            if row < len(items.products) and items.products[row] == product and row not in taken and fits[row]:
                chosen.append((row, 0.0))
                taken.add(row)
    return chosen
