"""Lakes for the tests of prices: one whose elasticities are known, and a slice of the carried year."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from connectors import demo_data
from tests.lake_tables import order, write_events

MONDAY = 1_483_315_200_000  # 2017-01-02T00:00Z
DAY = 86_400_000
ELASTICITIES = {"GROCERY": -2.5, "MEAT": -1.2, "PRODUCE": -0.4}
STEADY = "FUEL"
"""A group whose prices never change."""


def write_prices(root: Path, seed: int = 3, products: int = 12, weeks: int = 44) -> None:
    """Write weeks of lines: each week a product has a price of its own, and sells by its group's elasticity."""
    rng = np.random.default_rng(seed)
    lines = []
    for group in (*ELASTICITIES, STEADY):
        for product in range(products):
            usual, busy = 1.0 + product, 6.0 + float(rng.gamma(3.0, 2.0))
            for week in range(weeks):
                moved = group != STEADY and rng.random() < 0.4
                ratio = float(rng.choice([0.7, 0.8, 0.9, 1.1])) if moved else 1.0
                season = 1 + 0.2 * np.sin(week / 6)
                for _ in range(rng.poisson(busy * season * ratio ** ELASTICITIES.get(group, 0.0))):
                    quantity = int(rng.integers(1, 3))
                    time = MONDAY + week * 7 * DAY + int(rng.integers(0, 7 * DAY))
                    lines.append(
                        order(
                            len(lines), dealer_id=f"D{int(rng.integers(0, 9))}", customer_id=None,
                            category=group, product_id=f"{group}{product}", quantity=quantity,
                            amount=round(usual * ratio * quantity, 2), event_time=time,
                        )
                    )  # fmt: skip
    lines.sort(key=lambda each: each["event_time"])
    write_events(root, "orders", lines)


def write_carried(root: Path, products: int = 150) -> int:
    """Write the carried year's lines of the products that sell most; return how many there are."""
    source = demo_data.orders()
    year = source.frame(0, len(source))
    most = year.group_by("product_id").len().sort("len", "product_id", descending=True).head(products)
    lines = year.filter(pl.col("product_id").is_in(most["product_id"].implode())).with_columns(
        currency=pl.lit("USD"), channel=pl.lit("store")
    )
    write_events(root, "orders", lines.to_dicts())
    return len(lines)
