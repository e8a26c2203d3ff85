"""A small lake for the tests of training: half a year of orders at a few dealers, some of which stop, some
begin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lake_tables import order, write_events

START = 1_483_228_800_000
DAY = 86_400_000
DAYS = 220
CATEGORIES = ("GROCERY", "MEAT", "PRODUCE")


def orders(
    seed: int = 1,
    dealers: int = 48,
    days: int = DAYS,
    *,
    steady: bool = False,
    busier: tuple[int, float] = (0, 1.0),
) -> list[dict[str, Any]]:
    """Order lines with a weekly season, a size of each dealer, starts and ends. The same seed, the same
    lines.

    `steady`: dealers neither begin nor end, and no part of the year is better than another. From the day
    of `busier` on there are that many times as many lines.
    """
    rng = np.random.default_rng(seed)
    found = []
    for dealer in range(dealers):
        size = float(rng.gamma(0.5, 3.0)) + 0.03  # many small ones that order now and then
        begin = 0 if dealer % 4 else int(rng.integers(0, days // 2))
        end = days if dealer % 3 else int(rng.integers(days // 3, days))
        if steady:
            begin, end = 0, days
            size = (
                size if dealer % 4 else 0.15
            )  # some order every other week, and are silent for a month at times
        for day in range(begin, end):
            busy = size * (1.6 if day % 7 in (5, 6) else 0.8)
            busy *= 1.0 if steady else 1 + 0.3 * np.sin(day / 25)
            busy *= busier[1] if day >= busier[0] else 1.0
            for _ in range(rng.poisson(busy * 0.5)):
                category = CATEGORIES[int(rng.integers(0, 3))]
                found.append(
                    order(
                        len(found),
                        dealer_id=f"D{dealer:02}",
                        product_id=f"P{int(rng.integers(0, 12))}",
                        customer_id=f"C{int(rng.integers(0, 90))}",
                        category=category,
                        quantity=int(rng.integers(1, 4)),
                        amount=round(float(rng.gamma(3.0, 2.0)) * (2 if category == "MEAT" else 1), 2),
                        event_time=START + day * DAY + int(rng.integers(6 * 3_600_000, 22 * 3_600_000)),
                    )
                )
    return sorted(found, key=lambda each: each["event_time"])


def write_year(root: Path, **how: Any) -> list[dict[str, Any]]:
    """Write `orders(**how)` to a lake and return them."""
    events = orders(**how)
    write_events(root, "orders", events)
    return events
