"""From what is stored of a dealer to its candidates, and what speaks for each, in numbers.

A candidate's plain score is √c · u. c, how well it goes with what the dealer ordered lately, is the sum of its
cosines with each of those products; u is how many other dealers took it up lately. The root keeps a product
that goes with everything from hiding what dealers really begin to sell. What the dealer has already is left
out. A model that ranks better reads the same numbers, and more of them (`COLUMNS`).

No input or output is done here: the stream reads Redis between the steps, and a training set its own memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recommend.dealers import stocked
from models.recommend.decay import Decay
from models.recommend.records import Items, listed_of
from models.recommend.settings import RecommendSettings

__all__ = ["COLUMNS", "Candidates", "Neighbours", "Reading", "ranked"]

Products = NDArray[np.uint64]
Floats = NDArray[np.float64]

COLUMNS = (
    "plain", "together", "strongest", "reached", "backed", "uptake", "orders", "region_orders",
    "category_share", "idle_days", "ordered_days", "sold_out", "dealer_products", "dealer_lately",
    "dealer_silent_days",
)  # fmt: skip
"""What a model may read of a candidate, see `Candidates.columns`."""

_SEEDS = 400  # products that a dealer ordered last: a store sells so many within a week or two
_NEAREST = 500
_SHRINK = 5.0  # orders: a cosine of a product that was hardly ever ordered says little
_DAY_S = 86_400
_BEST, _EACH = 150, 60  # candidates that a model ranks: the best by the plain score, and by each single signal


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What goes with the products that a dealer ordered lately, ascending: sums of shares, the largest share,
    and of how many of them each is a neighbour.
    """

    products: Products
    together: Floats
    strongest: Floats
    reached: Floats


class Reading:
    """What is read of one dealer, step by step: first `seeds`, then what `wanted` names, then `candidates`.

    Args:
        known: what it has (`records.KNOWN`).
        uptake: the packed list of what most dealers took up.
        popular: the packed list of what is ordered most, everywhere or in the category that is asked for.
        settings: half-life, and how long what was ordered is had.
    """

    def __init__(
        self, known: NDArray[Any], uptake: bytes | None, popular: bytes | None, settings: RecommendSettings
    ) -> None:
        self._decay, self._known = Decay(settings.half_life_days), known
        uptake_s, self._uptake = listed_of(uptake)
        popular_s, listed = listed_of(popular)
        self.now_s = max(uptake_s, popular_s)
        """The newest event that was folded, s since 2000."""
        self.popular: Products = listed["product"]
        self._has = np.sort(known["product"][stocked(known, self.now_s, settings.stocked_days * _DAY_S)])
        self.seeds = _lately(known)
        """The products that it ordered last, ascending: their records are read first."""
        self.seed_items = Items.unpack(self.seeds[:0], [])
        self.near = Neighbours(self.seeds[:0], *(np.empty(0) for _ in range(3)))
        self.shares: Floats = np.empty((0, 0))
        """Of each seed and neighbour, the cosine but for the neighbour's own norm."""
        self.in_region: dict[int, float] = {}
        self.regional: Products = self.seeds[:0]

    def wanted(self, seed_items: Items, region: bytes | None) -> Products:
        """Return the candidates whose records are read now, ascending.

        Args:
            seed_items: the records of `seeds`.
            region: the packed list of what is ordered most in the dealer's region.
        """
        self.seed_items = seed_items
        at_s, listed = listed_of(region)
        self.regional = listed["product"]
        kept = float(self._decay.weight(np.array(self.now_s - at_s)))
        self.in_region = dict(zip(self.regional.tolist(), (listed["weight"] * kept).tolist(), strict=True))
        self.shares = self._shares()
        self.near = self._near(self.shares)
        near, taken = self.near.products, self._uptake["product"]
        nearest = near[np.argsort(-self.near.together, kind="stable")[:_NEAREST]]
        found = [nearest, near[np.isin(near, taken)], taken[:_EACH], self.popular, self.regional]
        wanted = np.unique(np.concatenate(found))
        return wanted[~np.isin(wanted, self._has)]

    def candidates(self, items: Items) -> Candidates:
        """Return the candidates with what speaks for them; `items` are the records of what was wanted."""
        kept = self._decay.weight(self.now_s - items.data["at"].astype(np.int64))
        orders, uptake = items.data["orders"] * kept, items.data["uptake"] * kept
        place = np.full(len(items.tails), -1)
        if len(self.near.products):
            at = np.searchsorted(self.near.products, items.products)
            at[at == len(self.near.products)] = 0
            place = np.where(self.near.products[at] == items.products, at, -1)
        together = np.where(place >= 0, _at(self.near.together, place), 0.0) / np.sqrt(orders + _SHRINK)
        return Candidates(self, items, place, orders, uptake, together, np.sqrt(together) * uptake)

    def dealer(self) -> Mapping[str, float]:
        """Return what is the same for all of its candidates: how many products it ordered, how many lately
        (decayed), and for how long it has been silent.
        """
        ordered = self._known["ordered"][self._known["ordered"] > 0].astype(np.int64)
        silent = float(self.now_s - ordered.max()) / _DAY_S if len(ordered) else np.nan
        return {
            "dealer_products": float(len(ordered)),
            "dealer_lately": float(self._decay.weight(self.now_s - ordered).sum()),
            "dealer_silent_days": silent,
        }

    def had(self, products: Products) -> tuple[Floats, Floats]:
        """Return when each was ordered by the dealer itself, days ago (NaN: never), and whether it told that
        none is left.
        """
        days, out = np.full(len(products), np.nan), np.zeros(len(products))
        if not len(self._known):
            return days, out
        known = self._known[np.argsort(self._known["product"])]
        at = np.minimum(np.searchsorted(known["product"], products), len(known) - 1)
        there = known["product"][at] == products
        ordered, stock = known["ordered"][at].astype(np.int64), known["stock"][at]
        before = there & (ordered > 0)
        days[before] = (self.now_s - ordered[before]) / _DAY_S
        out[there] = (stock[there] > 0) & (stock[there] % 2 == 0)
        return days, out

    def _shares(self) -> Floats:
        data = self.seed_items.data
        kept = self._decay.weight(self.now_s - data["at"].astype(np.int64))
        norm = np.sqrt(data["orders"] * kept + _SHRINK)
        found: Floats = data["near"]["together"] * (kept / norm)[:, None]
        return found

    def _near(self, share: Floats) -> Neighbours:
        held = share > 0
        names, which = np.unique(self.seed_items.data["near"]["product"][held], return_inverse=True)
        strongest = np.zeros(len(names))
        np.maximum.at(strongest, which, share[held])
        return Neighbours(
            names.astype(np.uint64),
            np.bincount(which, share[held], len(names)).astype(np.float64),
            strongest,
            np.bincount(which, minlength=len(names)).astype(np.float64),
        )


@dataclass(slots=True)
class Candidates:
    """Products that a dealer does not have, each with its plain score and the two signals that it is made of.

    `place` is where each stands among the neighbours, -1 for one that goes with nothing.
    """

    reading: Reading
    items: Items
    place: NDArray[np.int64]
    orders: Floats
    uptake: Floats
    together: Floats
    score: Floats

    def shortlist(self, fits: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the rows that a model ranks, ascending: of those that fit, the best by the plain score and by
        each signal alone.
        """
        products = self.items.products
        signals = [(self.score, _BEST), (self.together, _EACH), (self.uptake, _EACH), (self.orders, _EACH)]
        signals.append((self._regional(np.arange(len(products))), _EACH))
        rows = np.flatnonzero(fits)
        chosen = [
            rows[np.lexsort((products[rows], -by[rows]))[:most]][: int((by[rows] > 0).sum())]
            for by, most in signals
        ]
        return np.unique(np.concatenate(chosen))

    def columns(self, rows: NDArray[np.int64]) -> dict[str, Floats]:
        """Return what a model may read of rows, `COLUMNS`.

        `plain`: the plain score; `together`: the sum of cosines; `strongest`: the largest of them but for the
        product's own norm; `reached`: of how many of the dealer's last products it is a neighbour; `backed`:
        which share of the orders of its own neighbours is of products that the dealer ordered; `uptake`,
        `orders`, `region_orders`: dealers that took it up, orders everywhere and in the region (0 where it is
        not among the most popular there), all decayed; `category_share`: of the dealer's last products;
        `idle_days`: since anyone ordered it; `ordered_days`: since the dealer itself did; `sold_out`: 1 where
        it told that none is left; and of the dealer `Reading.dealer`.
        """
        reading, items = self.reading, self.items
        data, place = items.data[rows], self.place[rows]
        days, out = reading.had(items.products[rows])
        seeds = max(len(reading.seeds), 1)
        categories = Counter(reading.seed_items.name(row).category for row in range(len(reading.seeds)))
        share = [categories[items.name(row).category] / seeds for row in rows.tolist()]
        found = {
            "plain": self.score[rows],
            "together": self.together[rows],
            "strongest": np.where(place >= 0, _at(reading.near.strongest, place), 0.0),
            "reached": np.where(place >= 0, _at(reading.near.reached, place), 0.0),
            "backed": _backed(data, reading.seeds),
            "uptake": self.uptake[rows],
            "orders": self.orders[rows],
            "region_orders": self._regional(rows),
            "category_share": np.array(share, np.float64),
            "idle_days": (reading.now_s - data["at"].astype(np.int64)) / _DAY_S,
            "ordered_days": days,
            "sold_out": out,
        }
        return found | {name: np.full(len(rows), each) for name, each in reading.dealer().items()}

    def with_what(self, row: int, most: int) -> list[str]:
        """Return the dealer's products that a candidate goes with, the strongest first."""
        seeds = self.reading.seed_items
        mine = seeds.data["near"]["product"] == self.items.products[row]
        shares = np.where(mine, self.reading.shares, 0.0).sum(axis=1)
        best = np.argsort(-shares, kind="stable")[:most].tolist()
        return [seeds.name(seed).product_id for seed in best if shares[seed] > 0]

    def _regional(self, rows: NDArray[np.int64]) -> Floats:
        held = self.reading.in_region
        return np.array([held.get(each, 0.0) for each in self.items.products[rows].tolist()], np.float64)


def ranked(
    candidates: Candidates,
    fits: NDArray[np.bool_],
    model: Callable[[Mapping[str, Floats]], Floats] | None = None,
) -> tuple[NDArray[np.int64], Floats]:
    """Return the rows that are worth recommending, the best first, and the score of each; ties by name.

    Without a `model` that is the plain score, where there is any; a model is given `columns` of the short list
    and returns their scores.
    """
    if model is None:
        rows = np.flatnonzero(fits & (candidates.score > 0))
        score = candidates.score[rows]
    else:
        rows = candidates.shortlist(fits)
        score = model(candidates.columns(rows)) if len(rows) else np.empty(0)
    order = np.lexsort((candidates.items.products[rows], -score))
    return rows[order], score[order]


def _at(values: Floats, place: NDArray[np.int64]) -> Floats:
    """Values at places; 0 where there are none."""
    return values[place] if len(values) else np.zeros(len(place))


def _backed(data: NDArray[Any], seeds: Products) -> Floats:
    near, together = data["near"]["product"], data["near"]["together"].astype(np.float64)
    total = together.sum(axis=1)
    mine = np.where(np.isin(near, seeds), together, 0.0).sum(axis=1)
    return np.where(total > 0, mine / np.maximum(total, 1e-12), 0.0)


def _lately(known: NDArray[Any]) -> Products:
    """The products that a dealer ordered last, ascending; those of the same time by name."""
    entries = known[known["ordered"] > 0]
    if len(entries) > _SEEDS:
        entries = entries[np.lexsort((entries["product"], -entries["ordered"].astype(np.int64)))[:_SEEDS]]
    return np.sort(entries["product"])
