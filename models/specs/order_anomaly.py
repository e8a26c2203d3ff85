"""How likely an order line is wrong: a slipped decimal, a quantity out of all proportion, a price of something
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from models.inputs import EventField, Feature, Input, Ratio
from models.rules import InsightRule
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.training import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["OrderAnomaly"]

_FIELDS = ("quantity", "amount", "discount")
_KEYS = ("dealer_id", "category", "product_id")
_A_DAY = 256  # lines of a day, about
_ALTERED = 20  # one line in so many has an altered twin
_TWIN = "/altered"


def _inputs() -> tuple[Input, ...]:
    return (
        EventField("quantity", "quantity"),
        EventField("amount", "amount"),
        EventField("discount", "discount"),
        Ratio("unit_price", "amount", "quantity"),
        Ratio("discount_share", "discount", "amount"),
        Feature("product_lines_90d", "product_demand", "count_90d"),
        Feature("product_quantity_30d", "product_demand", "quantity_sum_30d"),
        Feature("product_quantity_90d", "product_demand", "quantity_sum_90d"),
        Feature("product_quantity_mean_90d", "product_demand", "quantity_mean_90d"),
        Feature("product_quantity_std_90d", "product_demand", "quantity_std_90d"),
        Feature("product_quantity_max_90d", "product_demand", "quantity_max_90d"),
        Feature("product_amount_30d", "product_demand", "amount_sum_30d"),
        Feature("product_amount_90d", "product_demand", "amount_sum_90d"),
        Ratio("usual_price_30d", "product_amount_30d", "product_quantity_30d"),
        Ratio("usual_price_90d", "product_amount_90d", "product_quantity_90d"),
        Ratio("price_over_usual_30d", "unit_price", "usual_price_30d"),
        Ratio("price_over_usual_90d", "unit_price", "usual_price_90d"),
        Ratio("quantity_over_usual", "quantity", "product_quantity_mean_90d"),
        Ratio("quantity_over_largest", "quantity", "product_quantity_max_90d"),
        Feature("category_amount_mean_90d", "dealer_category_orders", "amount_mean_90d"),
        Feature("category_amount_max_90d", "dealer_category_orders", "amount_max_90d"),
        Ratio("amount_over_category", "amount", "category_amount_mean_90d"),
        Ratio("amount_over_largest", "amount", "category_amount_max_90d"),
        Feature("dealer_amount_mean_30d", "dealer_orders", "amount_mean_30d"),
        Feature("dealer_amount_std_30d", "dealer_orders", "amount_std_30d"),
        Ratio("amount_over_dealer", "amount", "dealer_amount_mean_30d"),
    )


class OrderAnomaly(ModelSpec):
    """Boosted trees that tell lines as they came from twins that were altered, with Platt's calibration.

    Few lines are ever called wrong by a person, so most of what it learns from is made: one line in twenty has
    a twin whose quantity or amount slipped by a decimal, whose quantity is out of proportion, whose discount
    eats the price, or that has the amount of another line. Where a person has judged a line (`labels`, below 0:
    wrong), that counts. A line is seen with the features of the moment before it.
    """

    name = "order_anomaly"
    summary = "How likely an order line is wrong, 0 to 1, where one in twenty-one is."
    entity = ("event_id",)
    subject_type = "order"
    inputs = _inputs()
    label = Label(
        "orders", 0, 7 * DAY_MS, "yes", "a person called the line wrong within 7 days, or it was altered"
    )
    outputs = ("probability",)
    score = "probability"
    split = Split(holdout_ms=28 * DAY_MS, tune_ms=14 * DAY_MS)
    gate = Gate("average_precision")
    rules = (
        InsightRule(
            "order_line_odd", "probability", 0.9, "warning",
            "An order line of {dealer_id} looks wrong ({score:.0%}): {reasons}.",
            cool_down_ms=3_600_000,
        ),
    )  # fmt: skip

    def rows(self, stream: Stream) -> pa.Table:
        """Return some lines of each day, by a hash of their ids, and altered twins of some of them."""
        # How many of a day's lines are taken depends on the day before: the day itself is not over at its
        # lines.
        lines = stream.query(
            "orders",
            [*_KEYS, *_FIELDS],
            f"""WITH days AS (SELECT event_time // {DAY_MS} AS day, count(*) AS n FROM once GROUP BY day)
            SELECT event_id, {", ".join(_KEYS)}, {", ".join(_FIELDS)}, event_time FROM once
            LEFT JOIN days ON days.day + 1 = event_time // {DAY_MS}
            WHERE md5_number_lower(event_id) % greatest(1, coalesce(n, 0) // {_A_DAY}) = 0
            ORDER BY event_time, event_id""",
        )
        ids = lines["event_id"].to_pylist()
        number = np.array([xxh3_64_intdigest(each.encode()) for each in ids], np.uint64)
        twins = np.flatnonzero(number % _ALTERED == 0)
        fields = {name: lines[name].to_numpy().astype(np.float64) for name in _FIELDS}
        altered = _altered({name: column[twins] for name, column in fields.items()}, number[twins])
        at = pa.array(np.concatenate([np.arange(len(ids)), twins]))
        time = lines["event_time"].to_numpy() - 1
        return pa.table(
            {
                "event_id": ids + [f"{ids[i]}{_TWIN}" for i in twins],
                **{key: lines[key].take(at) for key in _KEYS},
                "event_timestamp": np.concatenate([time, time[twins]]),
                **{f"@{name}": np.concatenate([fields[name], altered[name]]) for name in _FIELDS},
            }
        )

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return 1 for an altered twin and for a line that a person called wrong."""
        from models.training.voices import verdicts

        columns = ["subject_id", "source", "value"]
        said = stream.events("labels", ["subject_type", *columns], "subject_type = 'order'")
        lines = rows["event_id"].to_pylist()
        wrong = verdicts(zip(*(said[each].to_pylist() for each in columns), strict=True), lines)
        return np.array([1.0 if each.endswith(_TWIN) or wrong.get(each) else 0.0 for each in lines])

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit, stop by the tuning rows, and calibrate on them."""
        from models.training.boosted import Boosted, boost, platt, with_missing

        booster = boost(
            {"objective": "binary", "num_leaves": 24, "learning_rate": 0.06, "min_data_in_leaf": 30,
             "feature_fraction": 0.7, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 2.0},
            with_missing(data.x[fit], seed), data.y[fit], (data.x[tune], data.y[tune]), seed=seed, rounds=300,
        )  # fmt: skip
        raw = booster.predict(data.x[tune], raw_score=True)
        slope, intercept = platt(raw, data.y[tune])
        return Boosted([booster], "logit", slope=slope, intercept=intercept)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return how far price and quantity are from the product's usual ones, as a share of 1."""
        far = np.zeros(len(at))
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in ("price_over_usual_90d", "quantity_over_usual"):
                steps = np.abs(np.log(data.column(name)[at].astype(np.float64)))
                far = np.maximum(far, np.nan_to_num(steps, nan=0.0, posinf=10.0))
        out: Floats = (1.0 - np.exp(-far))[:, None]
        return out

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return AUC, average precision, calibration and losses."""
        return metrics.binary(truth, answers, weights)

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return the largest categories, and expensive lines."""
        category = data.key("category").astype(str)
        names, counts = np.unique(category, return_counts=True)
        large = names[np.argsort(-counts)][:4]
        return {
            **{f"category={name}": category == name for name in large},
            "amount=large": data.column("amount") > 10,
        }

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the lines of products that sold hardly anything in 90 days."""
        return np.asarray(np.nan_to_num(data.column("product_lines_90d")) < 3)


def _altered(fields: dict[str, Floats], number: NDArray[np.uint64]) -> dict[str, Floats]:
    """Return fields of twins, each wrong in one of six ways that its number chooses."""
    way = number // _ALTERED % 6
    quantity, amount, discount = (fields[name].copy() for name in _FIELDS)
    size = 3.0 + (number // 120 % 8).astype(np.float64)
    amount[way == 0] *= 10
    amount[way == 1] /= 10
    quantity[way == 2] *= 10
    more = way == 3
    quantity[more], amount[more] = quantity[more] * size[more], amount[more] * size[more]
    discount[way == 4] += amount[way == 4] * 0.9
    amount[way == 4] *= 0.1
    swapped = np.flatnonzero(way == 5)
    # The amount of the twin before it in time: of a line that had been seen.
    amount[swapped] = fields["amount"][np.maximum(swapped - 1, 0)]
    return {"quantity": quantity, "amount": np.round(amount, 2), "discount": np.round(discount, 2)}
