"""The risk that a dealer orders nothing in the next four weeks, as a calibrated probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from models.inputs import Feature, Input, Log, Ratio
from models.rules import InsightRule
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.training import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["Churn"]

_MONTH, _WEEK, _ACTIVE = 28 * DAY_MS, 7 * DAY_MS, 90 * DAY_MS
_WINDOWS = ("24h", "7d", "30d", "90d")


def _inputs() -> tuple[Input, ...]:
    counts = [Feature(f"count_{each}", "dealer_orders", f"count_{each}") for each in _WINDOWS]
    sums = [Feature(f"amount_{each}", "dealer_orders", f"amount_sum_{each}") for each in _WINDOWS[1:]]
    reach = [
        Feature(f"{what}_{each}", "dealer_orders", f"{column}_distinct_{each}")
        for what, column in (("customers", "customer_id"), ("products", "product_id"))
        for each in ("30d", "90d")
    ]
    logs = [Log(f"log_{each.name}", each.name) for each in (*counts, *sums, *reach)]
    return (
        *counts, *sums, *reach, *logs,
        Ratio("count_last_week", "count_7d", "count_30d", 30 / 7),
        Ratio("count_last_month", "count_30d", "count_90d", 3.0),
        Ratio("amount_last_month", "amount_30d", "amount_90d", 3.0),
        Ratio("customers_last_month", "customers_30d", "customers_90d"),
    )  # fmt: skip


class Churn(ModelSpec):
    """Logistic regression with Platt's calibration. A row is a dealer once a week that ordered in the last 90
    days.
    """

    name = "churn"
    version = 2
    summary = "The risk that a dealer orders nothing in the next 28 days, 0 to 1."
    entity = ("dealer_id",)
    subject_type = "dealer"
    inputs = _inputs()
    label = Label("orders", _MONTH, DAY_MS, "yes", "no order in the 28 days after the row's time")
    outputs = ("probability",)
    score = "probability"
    split = Split(holdout_ms=56 * DAY_MS, tune_ms=28 * DAY_MS)
    gate = Gate("log_loss")
    rules = (
        InsightRule(
            "dealer_going_quiet", "probability", 0.7, "warning",
            "{subject_id} may order nothing in the next four weeks (risk {score:.0%}): {reasons}.",
            hysteresis=0.1, cool_down_ms=14 * DAY_MS,
        ),
    )  # fmt: skip

    def rows(self, stream: Stream) -> pa.Table:
        """Return each active dealer once a week, on a weekday of its own."""
        days = stream.summed("orders", self.entity, [])
        dealers = days["dealer_id"].to_pylist()
        time = days["event_time"].to_numpy()
        end = stream.until_ms or int(time.max())
        names: list[str] = []
        at: list[NDArray[np.int64]] = []
        starts = [i for i in range(len(dealers)) if i == 0 or dealers[i] != dealers[i - 1]]
        for first, beyond in zip(starts, [*starts[1:], len(dealers)], strict=True):
            mine, name = time[first:beyond], dealers[first]
            phase = xxh3_64_intdigest(name.encode()) % 7 * DAY_MS
            weeks = np.arange(mine[0] // _WEEK * _WEEK + phase, end + 1, _WEEK)
            # The last whole day with an order before the row's time: a row may know no more than that.
            place = np.searchsorted(mine, weeks)
            known = (place > 0) & (weeks - (mine[np.maximum(place - 1, 0)] + DAY_MS) <= _ACTIVE)
            at.append(weeks[known])
            names += [name] * int(known.sum())
        return pa.table({"dealer_id": pa.array(names, pa.string()), "event_timestamp": np.concatenate(at)})

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return 1 where nothing was ordered in the 28 days after."""
        silent = stream.after(rows, "orders", self.entity, self.label.horizon_ms) == 0
        return np.asarray(silent, np.float64)

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit a line through scaled logarithms: there are few dealers, and their rows are alike."""
        from models.training.linear import logistic

        return logistic(data.x, data.y, fit, tune)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the share of dealers that fell silent among those with as many days since their last order.

        Recency alone, as a rule of thumb: nothing in a week, nothing in a month.
        """
        from models.training.weekly import silence

        quiet = silence(data)
        early = data.time <= data.time[at].min() - self.label.known_after_ms
        shares = [
            float(data.y[early & (quiet == level)].mean()) if (early & (quiet == level)).any() else 0.5
            for level in range(4)
        ]
        return np.array(shares)[quiet[at]][:, None]

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return AUC, average precision, calibration and losses."""
        return metrics.binary(truth, answers, weights)

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return the dealers' size."""
        size = np.nan_to_num(data.column("amount_90d"))
        middle = float(np.median(size))
        return {"dealer=small": size <= middle, "dealer=large": size > middle}

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the dealers all of whose orders of 90 days came in the last 30."""
        return np.asarray(data.column("count_90d") == data.column("count_30d"))
