"""How the demand for a product answers to its price: an elasticity of each product group, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models.inputs import Code, EventField, Feature, Input, Ratio
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.training import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["PriceResponseSpec"]

_WEEK, _REST = 7 * DAY_MS, 6 * DAY_MS
_MONDAY = 3 * DAY_MS  # the epoch was a Thursday
_BEFORE = 13  # weeks that tell what is usual
_FEWEST_LINES = 26  # of them: two a week
_FURTHEST = float(np.log(4))  # prices further from the usual one are other things (a case, a bundle)


def _inputs() -> tuple[Input, ...]:
    return (
        EventField("price", "price"),
        Feature("amount_90d", "product_demand", "amount_sum_90d"),
        Feature("quantity_90d", "product_demand", "quantity_sum_90d"),
        Feature("lines_90d", "product_demand", "count_90d"),
        Ratio("usual_price", "amount_90d", "quantity_90d"),
        Ratio("price_over_usual", "price", "usual_price"),
        Code("group", "category", ()),
    )


class PriceResponseSpec(ModelSpec):
    """Poisson regression with fixed effects of product and week, pooled between groups. See its module.

    A row is a product in a week, seen when the week's first day is over: at the price it then had, how much is
    sold in the other six days. What was seen, and no experiment: prices fall in weeks of promotion, with
    displays and mailers beside them, so the elasticity is of a price change as this network makes them.
    """

    name = "price_response"
    summary = "Demand for a product at a price, over its usual demand, and its group's price elasticity."
    entity = ("product_id",)
    subject_type = "product"
    inputs = _inputs()
    label = Label(
        "orders", _REST, DAY_MS, "number", "what is sold in the other six days of the week, over the usual"
    )
    outputs = (
        "demand", "elasticity", "elasticity_low", "elasticity_high", "lowest_price", "highest_price",
        "estimated",
    )  # fmt: skip
    score = "demand"
    split = Split(holdout_ms=56 * DAY_MS, tune_ms=28 * DAY_MS)
    gate = Gate("deviance")
    in_stream = False

    def rows(self, stream: Stream) -> pa.Table:
        """Return each product that sold on a week's first day, and at least twice a week in the 13 before."""
        return stream.query(
            "orders",
            ["product_id", "category", "quantity", "amount"],
            f"""WITH sold AS (
                SELECT *, (event_time + {_MONDAY}) // {_WEEK} AS week FROM once
                WHERE quantity > 0 AND amount > 0
            ), weeks AS (
                SELECT product_id, week, count(*) AS n, sum(quantity) AS quantity FROM sold GROUP BY ALL
            ), before AS (
                SELECT product_id, week, sum(n) OVER recent AS n, sum(quantity) OVER recent AS quantity,
                    week - min(week) OVER (PARTITION BY product_id) AS age
                FROM weeks WINDOW recent AS (
                    PARTITION BY product_id ORDER BY week
                    RANGE BETWEEN {_BEFORE} PRECEDING AND 1 PRECEDING)
            ), days AS (
                SELECT product_id, week, min(category) AS category, sum(amount) / sum(quantity) AS price
                FROM sold WHERE (event_time + {_MONDAY}) % {_WEEK} < {DAY_MS} GROUP BY ALL
            )
            SELECT product_id, category, week * {_WEEK} - {_MONDAY} + {DAY_MS} AS event_timestamp,
                price AS "@price",
                before.quantity / least({_BEFORE}, age) * {_REST / _WEEK} AS usual_quantity
            FROM days JOIN before USING (product_id, week)
            WHERE before.n >= {_FEWEST_LINES} AND age > 0
            ORDER BY product_id, event_timestamp""",
        )

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return the quantity of the six days after, over what the weeks before sell in six days."""
        sold = stream.after(rows, "orders", self.entity, _REST, "quantity")
        return np.asarray(sold / rows["usual_quantity"].to_numpy())

    def resolve(self, rows: pa.Table) -> tuple[Input, ...]:
        """Fill in the groups."""
        groups = tuple(sorted(set(rows["category"].to_pylist())))
        return (*self.inputs[:-1], Code("group", "category", groups))

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit on both parts; the level of each group is that of the later one."""
        from models.training.price_response import Observed, PriceResponse, response_table

        names = [each.name for each in data.inputs]
        price, group = _price(data), _group(data)
        product = np.unique(data.key("product_id").astype(str), return_inverse=True)[1]
        week = data.time // _WEEK - int(data.time.min() // _WEEK)
        near = np.abs(price) <= _FURTHEST
        groups = len(_code(data).values)
        every, late = (
            Observed(data.y[at], price[at], group[at], product[at], week[at])
            for at in (np.concatenate([fit[near[fit]], tune[near[tune]]]), tune[near[tune]])
        )
        table, numbers = response_table(every, late, groups)
        at = names.index("price_over_usual"), names.index("group")
        return PriceResponse(table, *at, len(names), (np.exp(-_FURTHEST), np.exp(_FURTHEST)), numbers)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the usual demand whatever the price, as it was over all earlier rows."""
        early = data.time <= data.time[at].min() - self.label.known_after_ms
        usual = float(data.y[early].mean()) if early.any() else 1.0
        return np.tile([usual, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0], (len(at), 1))

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return the Poisson deviance of demand and its like."""
        return metrics.demand(truth, answers[:, 0], weights)

    def loss(self, truth: Floats, answers: Floats) -> Floats:
        """Return each row's deviance."""
        return metrics.poisson(truth, answers[:, 0])

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return the large groups, and prices below and above the usual one."""
        group, price = data.key("category").astype(str), _price(data)
        names, counts = np.unique(group, return_counts=True)
        large = names[np.argsort(-counts)][:6]
        return {
            **{f"group={name}": group == name for name in large},
            "price=reduced": price < -0.05,
            "price=raised": price > 0.05,
        }

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the products that sold less than four times a week."""
        return np.asarray(np.nan_to_num(data.column("lines_90d")) < 52)


def _price(data: TrainingSet) -> Floats:
    """The logarithm of the price over the usual one; 0 where either is missing."""
    ratio = data.column("price_over_usual").astype(np.float64)
    return np.log(np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0))


def _code(data: TrainingSet) -> Code:
    (found,) = (each for each in data.inputs if isinstance(each, Code))
    return found


def _group(data: TrainingSet) -> NDArray[np.int64]:
    """The group's number; one behind the last for a group that the model does not know."""
    last = len(_code(data).values)
    return np.nan_to_num(data.column("group").astype(np.float64), nan=last).astype(np.int64)
