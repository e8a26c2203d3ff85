"""How demand answers to prices: log-log Poisson regression with fixed effects, pooled between product groups.

The model of a row (product i of group g in week w, at a price p times its usual one):

    E[demand] = exp(a_i + b_w + e_g · log p)

fitted by Poisson pseudo-likelihood, which needs no demand above 0 and is consistent whatever the spread (Santos
Silva and Tenreyro, 2006, "The log of gravity"). The fixed effects take away what is a product's own and what
happened to all in a week. They have closed forms given the rest, so they are solved in turn with the slopes.
Errors are clustered by product. Groups are then drawn to their common mean, each as far as its own error is
large beside how much groups differ (DerSimonian and Laird, 1986): a ridge whose strength the data choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.export.graph import FLOAT64, INPUT, OUTPUT, finished, node, rounded
from models.spec import Fitted
from models.training.sets import NotEnoughDataError

__all__ = ["Observed", "PriceResponse", "Slopes", "enough", "pooled", "response_table", "slopes"]

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Vectors = NDArray[np.float32]

_FEWEST_CHANGES, _FEWEST_PRODUCTS, _A_CHANGE = 60, 5, 0.05
_NORMAL_95 = 1.959964
_RANGE = (0.05, 0.95)
_LEVEL_ROWS = 100.0
_INT64 = 7  # onnx.TensorProto


@dataclass(frozen=True)
class Observed:
    """Rows to learn from: demand over the usual one, the logarithm of the price over the usual one, and the
    numbers of group, product and week.
    """

    demand: Floats
    price: Floats
    group: Longs
    product: Longs
    week: Longs

    def take(self, at: NDArray[Any]) -> Observed:
        """Return some of the rows."""
        return Observed(self.demand[at], self.price[at], self.group[at], self.product[at], self.week[at])


@dataclass(frozen=True)
class Slopes:
    """Elasticities of groups and their standard errors, and the residual's way there."""

    value: Floats
    error: Floats
    rounds: int


def enough(rows: Observed, groups: int) -> NDArray[np.bool_]:
    """Return which groups have seen enough price changes to say anything.

    At least 60 rows at a price 5 % or more from the usual one, of at least 5 products.
    """
    changed = rows.take(np.abs(rows.price) >= _A_CHANGE)
    count = np.bincount(changed.group, minlength=groups)
    pairs = np.unique(np.stack([changed.group, changed.product]), axis=1)
    return np.asarray(
        (count >= _FEWEST_CHANGES) & (np.bincount(pairs[0], minlength=groups) >= _FEWEST_PRODUCTS)
    )


def slopes(rows: Observed, groups: int, rounds: int = 200) -> Slopes:
    """Return the elasticity of each of `groups`, with errors clustered by product.

    A group without rows has NaN. Groups share the effects of weeks alone.
    """
    demand, price, group = rows.demand, rows.price, rows.group
    product, week = (np.unique(each, return_inverse=True)[1] for each in (rows.product, rows.week))
    products, weeks = int(product.max()) + 1, int(week.max()) + 1
    sold, sold_week = _sums(product, demand, products), _sums(week, demand, weeks)
    value, of_week = np.zeros(groups), np.zeros(weeks)
    x = price - (np.bincount(product, price, products) / np.bincount(product, minlength=products))[product]
    done, step = 0, np.inf
    while step > 1e-6 and done < rounds:
        done += 1
        slope = np.exp(value[group] * x)
        of_product = _effect(sold, _sums(product, slope * np.exp(of_week[week]), products))
        of_week = _effect(sold_week, _sums(week, slope * np.exp(of_product[product]), weeks))
        of_week -= of_week.mean()
        mean = slope * np.exp(of_product[product] + of_week[week])
        # Newton's step for the slopes, with the products' effects taken out of both sides.
        inside = x - (_sums(product, mean * x, products) / _sums(product, mean, products))[product]
        residual = demand - mean
        curve = _sums(group, mean * inside * inside, groups)
        move = _sums(group, residual * inside, groups) / np.maximum(curve, 1e-9)
        value = value + np.clip(move, -0.5, 0.5)
        step = float(np.abs(move[curve > 1e-6]).max(initial=0.0))
    clustered = np.zeros((groups, products))
    np.add.at(clustered, (group, product), residual * inside)
    error = np.sqrt((clustered**2).sum(axis=1)) / np.maximum(curve, 1e-9)
    there = np.bincount(group, minlength=groups) > 0
    return Slopes(np.where(there, value, np.nan), np.where(there & (curve > 1e-6), error, np.nan), done)


def pooled(found: Slopes, usable: NDArray[np.bool_]) -> tuple[Floats, Floats, float, float]:
    """Return each group's elasticity drawn to the common one, its error, the common one, and its spread.

    A group that is not `usable` has the common one, with an error as large as groups differ.
    """
    b, v = found.value[usable], found.error[usable] ** 2
    w = 1.0 / v
    fixed = float((w * b).sum() / w.sum())
    spread_squared = 0.0
    if len(b) > 1:
        q, c = float((w * (b - fixed) ** 2).sum()), float(w.sum() - (w**2).sum() / w.sum())
        spread_squared = max(0.0, (q - (len(b) - 1)) / max(c, 1e-12))
    w = 1.0 / (v + spread_squared)
    common = float((w * b).sum() / w.sum())
    value = np.full(len(usable), common)
    error = np.full(len(usable), np.sqrt(spread_squared + 1.0 / w.sum()))
    if spread_squared > 0:
        inverse = 1.0 / v + 1.0 / spread_squared
        value[usable], error[usable] = (b / v + common / spread_squared) / inverse, np.sqrt(1.0 / inverse)
    return value, error, common, float(np.sqrt(spread_squared))


def response_table(rows: Observed, late: Observed, groups: int) -> tuple[Floats, dict[str, float]]:
    """Return the table of `PriceResponse`, and numbers about it.

    Slopes and ranges of prices are those of `rows`; levels are those of `late`, a hundred rows of the common
    one beside those of a group. Raises NotEnoughDataError where no group has enough price changes.
    """
    sold = np.bincount(rows.product, rows.demand)[rows.product] > 0  # who never sells tells nothing of prices
    rows = rows.take(sold)
    usable, found = enough(rows, groups), slopes(rows, groups)
    usable &= np.isfinite(found.error) & (found.error > 0)
    if not usable.any():
        raise NotEnoughDataError(
            f"no product group has {_FEWEST_CHANGES} price changes of {_FEWEST_PRODUCTS} products: nothing is "
            "known of what prices do"
        )
    value, error, common, spread = pooled(found, usable)
    table = np.zeros((groups + 1, 7))
    table[:, 0] = np.append(value, common)
    table[:, 1] = table[:, 0] - _NORMAL_95 * np.append(error, spread)
    table[:, 2] = table[:, 0] + _NORMAL_95 * np.append(error, spread)
    table[:groups, 5] = usable
    table[groups, 6] = _level(late, common)
    for number in range(groups + 1):
        mine = rows.price if number == groups else rows.price[rows.group == number]
        table[number, 3:5] = np.exp(np.quantile(mine, _RANGE)) if len(mine) else 1.0
        if number < groups:
            table[number, 6] = _level(late.take(late.group == number), value[number], table[groups, 6])
    return table, {
        "elasticity": common, "elasticity_spread": spread, "groups": float(usable.sum()),
        "rounds": float(found.rounds), "products": float(len(np.unique(rows.product))),
    }  # fmt: skip


class PriceResponse(Fitted):
    """A table of groups, and demand at a price: exp(level + elasticity · log(price over the usual one)).

    `table` [groups + 1, 7]: elasticity, low, high (95 %), the lowest and highest price over the usual one that
    was seen, whether the group was estimated by itself, level. The last row answers for unknown groups.
    """

    def __init__(
        self, table: Floats, price: int, code: int, inputs: int, limits: tuple[float, float],
        numbers: dict[str, float],
    ) -> None:  # fmt: skip
        self.table, self.price, self.code, self.inputs, self.limits = table, price, code, inputs, limits
        self.numbers = numbers

    def predict(self, x: Vectors) -> Floats:
        """Return demand over the usual one, and the group's row of the table without its level."""
        given = x[:, self.price].astype(np.float64)
        ratio = np.clip(np.where(np.isnan(given), 1.0, given), *self.limits)
        code = np.floor(np.where(np.isnan(x[:, self.code]), -1.0, x[:, self.code].astype(np.float64)))
        last = len(self.table) - 1
        rows = self.table[np.where((code < 0) | (code > last), last, code).astype(np.int64)]
        demand = np.exp(rows[:, 6] + rows[:, 0] * np.log(ratio))
        return np.column_stack([demand, rows[:, :6]])

    def to_onnx(self) -> bytes:
        """Return the same as one graph."""
        last = len(self.table) - 1
        constants = {
            "price_at": np.array([self.price], np.int64), "code_at": np.array(self.code, np.int64),
            "one": np.float64(1), "none": np.float64(-1), "zero": np.float64(0), "last": np.float64(last),
            "least": np.float64(self.limits[0]), "most": np.float64(self.limits[1]),
            "table": self.table, "slope_at": np.array([0], np.int64), "level_at": np.array([6], np.int64),
            "shown": np.arange(6, dtype=np.int64),
        }  # fmt: skip
        nodes = [
            node("Cast", [INPUT], "exact", to=FLOAT64),
            node("Gather", ["exact", "price_at"], "price", axis=1),
            node("IsNaN", ["price"], "no_price"),
            node("Where", ["no_price", "one", "price"], "some_price"),
            node("Clip", ["some_price", "least", "most"], "ratio"),
            node("Log", ["ratio"], "log_ratio"),
            node("Gather", ["exact", "code_at"], "code", axis=1),
            node("IsNaN", ["code"], "no_code"),
            node("Where", ["no_code", "none", "code"], "some_code"),
            node("Floor", ["some_code"], "whole_code"),
            node("Less", ["whole_code", "zero"], "below"),
            node("Greater", ["whole_code", "last"], "above"),
            node("Or", ["below", "above"], "unknown"),
            node("Where", ["unknown", "last", "whole_code"], "known_code"),
            node("Cast", ["known_code"], "row", to=_INT64),
            node("Gather", ["table", "row"], "rows", axis=0),
            node("Gather", ["rows", "slope_at"], "slope", axis=1),
            node("Gather", ["rows", "level_at"], "level", axis=1),
            node("Mul", ["slope", "log_ratio"], "effect"),
            node("Add", ["effect", "level"], "log_demand"),
            node("Exp", ["log_demand"], "demand"),
            node("Gather", ["rows", "shown"], "told", axis=1),
            node("Concat", ["demand", "told"], "all", axis=1),
            rounded("all", OUTPUT),
        ]
        return finished(nodes, constants, self.inputs, 7, "price_response")

    def facts(self) -> dict[str, float]:
        """Return the common elasticity, how much groups differ, and how many were estimated."""
        return self.numbers


def _level(rows: Observed, slope: float, common: float | None = None) -> float:
    """The logarithm of demand over what the price alone explains."""
    usual, sold = float(np.exp(slope * rows.price).sum()), float(rows.demand.sum())
    if common is not None:
        usual, sold = usual + _LEVEL_ROWS, sold + _LEVEL_ROWS * np.exp(common)
    return float(np.log(max(sold, 1e-9) / max(usual, 1e-9)))


def _sums(of: Longs, values: Floats, count: int) -> Floats:
    """The sum of values by their number."""
    return np.bincount(of, values, count).astype(np.float64)


def _effect(sold: Floats, expected: Floats) -> Floats:
    """The closed form of a fixed effect given the rest; one that never sold has a very small one."""
    return np.asarray(np.log(np.maximum(sold, 1e-9) / np.maximum(expected, 1e-300)))
