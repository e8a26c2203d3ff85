"""From what is stored to what a dealer is recommended, and why.

A candidate's score is √c · u. c, how well it goes with what the dealer ordered lately, is the sum of its
cosines with each of those products; u is how many other dealers took it up lately. The root keeps a product
that goes with everything from hiding what dealers really begin to sell. What the dealer has already is left
out. Where that fills no page, what is popular follows: in the category that is asked for, or in the dealer's
region, or everywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.recommend.dealers import stocked
from streams.recommend.decay import EPOCH_S, Decay
from streams.recommend.records import Items, field_of, known_of, listed_of
from streams.recommend.settings import RecommendSettings
from streams.recommend.store import Keys

__all__ = ["Ranking", "Recommendation", "Recommendations", "Why"]

Commands = list[tuple[Any, ...]]
Products = NDArray[np.uint64]

_SEEDS = 400  # products that a dealer ordered last: a store sells so many within a week or two
_CANDIDATES = 500
_SHRINK = 5.0  # orders: a cosine of a product that was hardly ever ordered says little
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
    """What a dealer is recommended. `at_ms` is the newest event folded; `known` whether the dealer ordered."""

    dealer_id: str
    at_ms: int
    known: bool
    items: list[Recommendation]


@dataclass(slots=True)
class _Scored:
    """Candidates with their score and what speaks for them."""

    items: Items
    score: NDArray[np.float64]
    uptake: NDArray[np.float64]


class Ranking:
    """Ranks for one project; `steps` does no input or output itself, so that any kind of client can run it."""

    def __init__(self, project: str, settings: RecommendSettings | None = None) -> None:
        settings = settings or RecommendSettings()
        self._keys, self._decay = Keys(project), Decay(settings.half_life_days)
        self._stocked_s = settings.stocked_days * 86_400

    def steps(
        self, dealer_id: str, limit: int, category: str | None = None
    ) -> Generator[Commands, list[Any], Recommendations]:
        """Yield Redis commands that go together, be sent their replies, and return the recommendations."""
        keys = self._keys
        names = ["uptake", "orders"] if category is None else ["uptake", f"category:{category}"]
        pieces, told, lists = yield [
            ("LRANGE", keys.known(dealer_id), 0, -1),
            ("HGET", keys.regions, dealer_id),
            ("HMGET", keys.lists, *names),
        ]
        known = known_of(b"".join(pieces))
        region = (told or b"").decode().partition(" ")[2] if category is None else ""
        (uptake_s, uptake), (popular_s, popular) = map(listed_of, lists)
        now_s = max(uptake_s, popular_s)
        favourites = {f"category {category}" if category else "every region": popular["product"]}
        seeds = _lately(known)
        commands: Commands = [("HMGET", keys.items, *map(field_of, seeds.tolist()))] if len(seeds) else []
        if region:
            commands.append(("HGET", keys.lists, f"region:{region}"))
        replies = (yield commands) if commands else []
        if region:
            favourites = {f"region {region}": listed_of(replies[-1])[1]["product"], **favourites}
        seed_items = Items.unpack(seeds, replies[0] if len(seeds) else [])
        near, strength = self._near(seed_items, now_s)
        well_known = near[np.isin(near, uptake["product"])]
        best = near[np.argsort(-strength, kind="stable")[:_CANDIDATES]]
        wanted = np.unique(np.concatenate([best, well_known, *favourites.values()]))
        has = known["product"][stocked(known, now_s, self._stocked_s)]
        wanted = wanted[~np.isin(wanted, has)]
        replies = (yield [("HMGET", keys.items, *map(field_of, wanted.tolist()))]) if len(wanted) else [[]]
        scored = self._score(Items.unpack(wanted, replies[0]), near, strength, now_s)
        chosen = _chosen(scored, favourites.values(), limit, category)
        found = [self._told(scored, row, seed_items, favourites, now_s) for row in chosen]
        return Recommendations(dealer_id, (now_s + EPOCH_S) * 1000, len(seeds) > 0, found)

    def _near(self, seeds: Items, now_s: int) -> tuple[Products, NDArray[np.float64]]:
        """The neighbours of what was ordered lately, ascending, with the sum of their shares."""
        share = self._shares(seeds, now_s)
        held = share > 0
        names, which = np.unique(seeds.data["near"]["product"][held], return_inverse=True)
        return names.astype(np.uint64), np.bincount(which, share[held], len(names)).astype(np.float64)

    def _shares(self, seeds: Items, now_s: int) -> NDArray[np.float64]:
        """Of each seed and neighbour, the cosine but for the neighbour's own norm."""
        kept = self._decay.weight(now_s - seeds.data["at"].astype(np.int64))
        norm = np.sqrt(seeds.data["orders"] * kept + _SHRINK)
        shares: NDArray[np.float64] = seeds.data["near"]["together"] * (kept / norm)[:, None]
        return shares

    def _score(self, items: Items, near: Products, strength: NDArray[np.float64], now_s: int) -> _Scored:
        kept = self._decay.weight(now_s - items.data["at"].astype(np.int64))
        norm = np.sqrt(items.data["orders"] * kept + _SHRINK)
        uptake = items.data["uptake"] * kept
        together = np.zeros(len(items.tails))
        if len(near):
            at = np.searchsorted(near, items.products)
            at[at == len(near)] = 0
            together = np.where(near[at] == items.products, strength[at], 0.0)
        return _Scored(items, np.sqrt(together / norm) * uptake, uptake)

    def _told(
        self, scored: _Scored, row: int, seeds: Items, favourites: Mapping[str, Products], now_s: int
    ) -> Recommendation:
        product = int(scored.items.products[row])
        shares = np.where(seeds.data["near"]["product"] == product, self._shares(seeds, now_s), 0.0).sum(axis=1)
        with_ = [i for i in np.argsort(-shares, kind="stable")[:_REASONS].tolist() if shares[i] > 0]
        name = scored.items.name(row)
        places = (place for place, some in favourites.items() if product in some)
        return Recommendation(
            name.product_id,
            name.category,
            round(float(scored.score[row]), 6),
            Why(
                tuple(seeds.name(i).product_id for i in with_),
                round(float(scored.uptake[row]), 2),
                next(places, None),
            ),
        )


def _lately(known: NDArray[Any]) -> Products:
    """The products that a dealer ordered last, ascending; those of the same time by name."""
    entries = known[known["ordered"] > 0]
    if len(entries) > _SEEDS:
        entries = entries[np.lexsort((entries["product"], -entries["ordered"].astype(np.int64)))[:_SEEDS]]
    return np.sort(entries["product"])


def _chosen(scored: _Scored, popular: Iterable[Products], limit: int, category: str | None) -> list[int]:
    """Rows of the recommendations: the best scores, then what is popular; ties by name."""
    items = scored.items
    fits = [bool(tail) and category in (None, items.name(row).category) for row, tail in enumerate(items.tails)]
    order = np.lexsort((items.products, -scored.score))
    chosen = [row for row in order.tolist() if scored.score[row] > 0 and fits[row]][:limit]
    taken = set(chosen)
    for products in popular:
        at = np.searchsorted(items.products, products)
        for row, product in zip(at.tolist(), products.tolist(), strict=True):
            if len(chosen) >= limit:
                return chosen
            if row < len(items.products) and items.products[row] == product and row not in taken and fits[row]:
                chosen.append(row)
                taken.add(row)
    return chosen
