"""Whether a dealer orders a category again within a week, as a calibrated probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.inputs import Calendar, Code, Feature, Holidays, Input, Ratio
from models.rules import InsightRule
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, TrainingSet
from models.training import metrics, segments

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["Reorder"]

_WEEK, _KEYS = 7 * DAY_MS, ("dealer_id", "category")
_ACTIVE = 90 * DAY_MS  # as long as the feature view's time to live
_WINDOWS = ("24h", "7d", "30d", "90d")
_CADENCES = (1, 2, 4, 8, 16, 32, 64)
"""Lines in 90 days: where one step of the baseline ends and the next begins."""
_FEWEST = 20  # rows that the mean of all counts for in a cell of the baseline


def _inputs() -> tuple[Input, ...]:
    of_category = [
        Feature(name, "dealer_category_orders", name)
        for what in ("count", "amount_sum", "quantity_sum")
        for name in (f"{what}_{window}" for window in _WINDOWS)
    ]
    of_dealer = [
        Feature(f"dealer_{name}", "dealer_orders", name)
        for name in (
            "count_24h", "count_7d", "count_30d", "count_90d", "customer_id_distinct_7d",
            "customer_id_distinct_30d", "product_id_distinct_30d",
        )
    ]  # fmt: skip
    return (
        *of_category,
        *of_dealer,
        Ratio("last_week", "count_7d", "count_30d", 30 / 7),
        Ratio("last_month", "count_30d", "count_90d", 3.0),
        Ratio("dealer_last_week", "dealer_count_7d", "dealer_count_30d", 30 / 7),
        Ratio("share_of_dealer", "count_90d", "dealer_count_90d"),
        Calendar("weekday", "weekday"),
        Holidays("holidays_ahead", 7, ()),
        Code("category_code", "category", ()),
    )


class Reorder(ModelSpec):
    """Boosted trees with Platt's calibration. A row is a dealer's category once a week, on a weekday of its
    own, while it has been ordered in the last 90 days.

    `behind` is by how much the probability is less than what is usual for a series that is ordered so often:
    near 0 for one that is rarely ordered, large for one that was steady and is not any more.
    """

    name = "reorder"
    summary = "How likely a dealer orders of a category in the next 7 days, and how much less than is usual."
    entity = _KEYS
    subject_type = "dealer_category"
    inputs = _inputs()
    label = Label("orders", _WEEK, DAY_MS, "yes", "the dealer orders of the category in the 7 days after")
    outputs = ("probability", "behind")
    score = "probability"
    gate = Gate("log_loss")
    rules = (
        InsightRule(
            "reorder_falling_behind", "behind", 0.35, "notice",
            "{subject_id} falls behind its usual orders (another within a week: {score:.0%}): {reasons}.",
            hysteresis=0.1, cool_down_ms=14 * DAY_MS,
        ),
    )  # fmt: skip

    def rows(self, stream: Stream) -> pa.Table:
        """Return each active dealer's category once a week."""
        from models.training.weekly import active_weeks

        return active_weeks(stream, _KEYS, _ACTIVE)

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return 1 where anything of the category was ordered in the seven days after."""
        return np.asarray(stream.after(rows, "orders", _KEYS, self.label.horizon_ms) > 0, np.float64)

    def resolve(self, rows: pa.Table) -> tuple[Input, ...]:
        """Fill in the categories, and the holidays of the years around."""
        from models.training.holidays import holiday_days

        categories = tuple(sorted(set(rows["category"].to_pylist())))
        holidays = holiday_days(rows["event_timestamp"].to_numpy())
        return (
            *self.inputs[:-2],
            Holidays("holidays_ahead", 7, holidays),
            Code("category_code", "category", categories),
        )

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit the trees, calibrate them on the later rows, and fit what is usual on all."""
        from models.training.boosted import Boosted, boost, platt, usual, with_missing

        booster = boost(
            {"objective": "binary", "num_leaves": 31, "learning_rate": 0.06, "min_data_in_leaf": 100,
             "feature_fraction": 0.7, "bagging_fraction": 0.7, "bagging_freq": 1},
            with_missing(data.x[fit], seed), data.y[fit], (data.x[tune], data.y[tune]), seed=seed, rounds=400,
        )  # fmt: skip
        slope, intercept = platt(booster.predict(data.x[tune], raw_score=True), data.y[tune])
        column = [each.name for each in data.inputs].index("count_90d")
        both = np.concatenate([fit, tune])
        often = usual(data.x[both], data.y[both], column)
        return Boosted([booster], "logit", slope=slope, intercept=intercept, usual=often)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the dealer's own cadence: the share of earlier rows with as many lines in 90 days, as long
        silent, that were ordered within a week.
        """
        from models.training.weekly import silence

        early = data.time <= data.time[at].min() - self.label.known_after_ms
        cadence = np.searchsorted(_CADENCES, np.nan_to_num(data.column("count_90d")), "right")
        cell = cadence * 4 + silence(data)
        count = np.bincount(cell[early], minlength=int(cell.max()) + 1)
        yes = np.bincount(cell[early], data.y[early], int(cell.max()) + 1)
        whole = float(data.y[early].mean()) if early.any() else 0.5
        # A cell with few rows is drawn to the mean of all.
        shares: Floats = (yes + _FEWEST * whole) / (count + _FEWEST)
        return np.column_stack([shares[cell[at]], np.zeros(len(at))])

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return AUC, average precision, calibration and losses."""
        return metrics.binary(truth, answers[:, 0], weights)

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return the large categories, and the dealers' size."""
        return segments.by_category_and_size(data, "dealer_count_90d")

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the rows whose dealer began to order the category less than four weeks before."""
        return segments.begun_lately(data)
