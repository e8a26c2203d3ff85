"""What a dealer will sell of a category in the next seven days, as quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models.inputs import Calendar, Code, Feature, Holidays, Input, Ratio
from models.rules import InsightRule
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, TrainingSet
from models.training import metrics, segments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["DemandForecast"]

_WEEK, _KEYS = 7 * DAY_MS, ("dealer_id", "category")
_LEVELS = (0.1, 0.5, 0.9)
_ACTIVE = 90 * DAY_MS  # as long as the feature view's time to live


def _inputs() -> tuple[Input, ...]:
    of_category = [
        Feature(name, "dealer_category_orders", name)
        for what in ("count", "amount_sum", "quantity_sum")
        for name in (f"{what}_24h", f"{what}_7d", f"{what}_30d", f"{what}_90d")
    ]
    of_dealer = [
        Feature(f"dealer_{name}", "dealer_orders", name)
        for name in ("amount_sum_7d", "amount_sum_30d", "amount_sum_90d", "count_30d")
    ]
    return (
        *of_category,
        Feature("amount_mean_90d", "dealer_category_orders", "amount_mean_90d"),
        Feature("amount_max_90d", "dealer_category_orders", "amount_max_90d"),
        *of_dealer,
        Ratio("last_week", "amount_sum_7d", "amount_sum_30d", 30 / 7),
        Ratio("last_month", "amount_sum_30d", "amount_sum_90d", 3.0),
        Ratio("dealer_last_week", "dealer_amount_sum_7d", "dealer_amount_sum_30d", 30 / 7),
        Ratio("dealer_last_month", "dealer_amount_sum_30d", "dealer_amount_sum_90d", 3.0),
        Ratio("share_of_dealer", "amount_sum_90d", "dealer_amount_sum_90d"),
        Calendar("weekday", "weekday"),
        Calendar("day_of_month", "day_of_month"),
        Holidays("holidays_ahead", 7, ()),
        Code("category_code", "category", ()),
    )


class DemandForecast(ModelSpec):
    """LightGBM quantile regression on a log scale, around the mean week of the last 30 days.

    One model for all dealers and categories, so a new dealer is forecast by what others like it did. A row is a
    dealer's category once a week, on a weekday of its own, while it has sold anything in the last 90 days.
    """

    name = "demand_forecast"
    summary = "What a dealer will sell of a category in the next 7 days: 10 %, 50 % and 90 % quantiles."
    entity = _KEYS
    subject_type = "dealer_category"
    inputs = _inputs()
    label = Label("orders", _WEEK, DAY_MS, "number", "amount ordered in the 7 days after the row's time")
    outputs = ("q10", "q50", "q90")
    score = "q50"
    gate = Gate("wql")
    rules = (
        InsightRule(
            "demand_surge", "q50", round(1.5 * 7 / 30, 4), "notice",
            "{subject_id}: {score:.0f} expected in the next 7 days, half as much again as usual: {reasons}.",
            over="amount_sum_30d", hysteresis=0.05, cool_down_ms=3 * DAY_MS,
        ),
    )  # fmt: skip

    def rows(self, stream: Stream) -> pa.Table:
        """Return each active dealer's category once a week."""
        from models.training.weekly import active_weeks

        return active_weeks(stream, _KEYS, _ACTIVE)

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return the amount ordered in the seven days after."""
        return stream.after(rows, "orders", _KEYS, self.label.horizon_ms, "amount")

    def resolve(self, rows: pa.Table) -> tuple[Input, ...]:
        """Fill in the categories, and the holidays of the years around."""
        return tuple(_resolved(each, rows) for each in self.inputs)

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit one booster a quantile to log(1 + y), less the offset.

        `tune` tells how many rounds, and is learnt from then: no weeks tell more of the next than the newest.
        """
        from models.training.boosted import Boosted, Offset, boost, grow, with_missing

        names = [each.name for each in data.inputs]
        offset = Offset(names.index("amount_sum_30d"), 7 / 30)
        start, y = offset.of(data.x), np.log1p(data.y)
        weights = np.sqrt(np.expm1(start) + 1.0)  # a large series counts more, as it does in the metric
        known, boosters = np.concatenate([fit, tune]), []
        for level in _LEVELS:
            parameters = {
                "objective": "quantile", "alpha": level, "num_leaves": 31, "learning_rate": 0.06,
                "min_data_in_leaf": 100, "feature_fraction": 0.7, "bagging_fraction": 0.7, "bagging_freq": 1,
            }  # fmt: skip
            stopped = boost(
                parameters, with_missing(data.x[fit], seed), (y - start)[fit],
                (data.x[tune], (y - start)[tune]), seed=seed, rounds=400, weights=(weights[fit], weights[tune]),
            )  # fmt: skip
            grown = grow(
                parameters, with_missing(data.x[known], seed), (y - start)[known],
                seed=seed, rounds=stopped.num_trees(), weights=weights[known],
            )  # fmt: skip
            boosters.append(grown)
        return Boosted(boosters, "log", offset=offset)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return last week again (seasonal naive), for every quantile."""
        week = np.nan_to_num(data.column("amount_sum_7d")[at].astype(np.float64))
        return np.repeat(week[:, None], len(_LEVELS), axis=1)

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return the weighted quantile loss and its like."""
        return metrics.quantiles(truth, answers, _LEVELS, weights)

    def loss(self, truth: Floats, answers: Floats) -> Floats:
        """Return the pinball losses of a row, as the weighted quantile loss adds them up."""
        return metrics.pinball(truth, answers, _LEVELS)

    def scale(self, truth: Floats) -> Floats:
        """Return the amounts: the weighted quantile loss is a share of them."""
        return np.abs(truth)

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return the large categories, and the dealers' size."""
        return segments.by_category_and_size(data, "dealer_amount_sum_90d")

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the rows whose dealer began to sell the category less than four weeks before."""
        return segments.begun_lately(data)


def _resolved(each: Input, rows: pa.Table) -> Input:
    if isinstance(each, Code):
        return Code(each.name, each.key, tuple(sorted(set(rows[each.key].to_pylist()))))
    if isinstance(each, Holidays):
        from models.training.holidays import holiday_days

        return Holidays(each.name, each.days, holiday_days(rows["event_timestamp"].to_numpy()))
    return each
