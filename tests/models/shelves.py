"""A lake for the tests of next-best products: dealers of a few tastes, and products that come out one by one.

A dealer takes up what its own taste likes soon after it comes out, and something else now and then. What sells
most is for everybody, and was taken up long ago.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lake_tables import order, write_events

START = 1_483_228_800_000
DAY = 86_400_000
TASTES = 4


def lines(seed: int = 1, dealers: int = 40, days: int = 220, products: int = 70) -> list[dict[str, Any]]:
    """Order lines in the order of event time; the same seed, the same lines."""
    rng = np.random.default_rng(seed)
    out = [np.sort(rng.integers(-40, days, products)) for _ in range(TASTES)]  # when each comes out
    found: list[dict[str, Any]] = []
    for dealer in range(dealers):
        taste, has = dealer % TASTES, [f"S{each}" for each in range(12)]
        for day in range(days):
            if rng.random() > 0.45:
                continue
            basket = set(rng.choice(has, 4).tolist())
            for of in range(TASTES):
                known = np.flatnonzero((out[of] <= day) & (out[of] > day - 45))
                if len(known) and rng.random() < (0.5 if of == taste else 0.05):
                    basket.add(f"T{of}-{int(rng.choice(known))}")
            has += sorted(basket - set(has))
            at = START + day * DAY + int(rng.integers(6 * 3_600_000, 20 * 3_600_000))
            found += [
                order(
                    0, dealer_id=f"D{dealer:02}", order_id=f"o{dealer}-{day}", line=line, product_id=product,
                    category=product.partition("-")[0][:2], event_time=at, customer_id=None,
                )
                for line, product in enumerate(sorted(basket))
            ]  # fmt: skip
    found.sort(key=lambda each: each["event_time"])
    return [each | {"event_id": f"e{number}"} for number, each in enumerate(found)]


def dealer(number: int) -> dict[str, Any]:
    """A dealer of one of two regions."""
    name = f"D{number:02}"
    return {"dealer_id": name, "name": name, "region": "NorthSouth"[number % 2 * 5 :][:5], "event_time": START}


def write_shelves(root: Path, **how: Any) -> list[dict[str, Any]]:
    """Write orders and dealers to a lake; return the orders."""
    events = lines(**how)
    write_events(root, "orders", events)
    write_events(root, "dealers", [dealer(number) for number in range(40)])
    return events
