"""Which products a dealer takes up next: a ranking of what it does not have yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.inputs import EventField, Input, Log, Ratio
from models.recommend.candidates import COLUMNS
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.training import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["NextBestProducts"]

_WEEK = 7 * DAY_MS
_FEW = 30  # products that a dealer ordered


def _inputs() -> tuple[Input, ...]:
    return (
        *(EventField(name, name) for name in COLUMNS),
        Ratio("uptake_share", "uptake", "orders"),
        Ratio("region_share", "region_orders", "orders"),
        Log("log_together", "together"),
    )


class NextBestProducts(ModelSpec):
    """LambdaRank (Burges, 2010) by LightGBM on the candidates of recommendations, its scores made probabilities
    by Platt's line, which keeps their order.

    A row is a candidate of a dealer at a midnight: a product that it does not have. It reads what
    recommendations read, and is asked where they are: `GET /v1/recommendations/{dealer_id}`.
    """

    name = "next_best_products"
    summary = "How likely a dealer orders a product that it does not have within 7 days; ranks recommendations."
    entity = ("dealer_id", "product_id")
    subject_type = "dealer_product"
    inputs = _inputs()
    label = Label("orders", _WEEK, DAY_MS, "yes", "the dealer orders the product in the 7 days after")
    outputs = ("probability",)
    score = "probability"
    split = Split(holdout_ms=56 * DAY_MS, tune_ms=28 * DAY_MS)
    gate = Gate("ndcg@10")
    in_stream = False

    def rows(self, stream: Stream) -> pa.Table:
        """Return the candidates of some dealers a day, each dealer at most once a week."""
        from models.training.lists import candidate_lists

        return candidate_lists(stream)

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return 1 where the dealer ordered the product in the week after."""
        taken = stream.after(rows, "orders", self.entity, self.label.horizon_ms) > 0
        return np.asarray(taken, np.float64)

    def truth(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return each row's outcome and the number of its list."""
        return np.column_stack([data.y[at], _lists(data)[at]])

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit the order within each list that has anything right in it; calibrate on all of the later ones."""
        from models.training.boosted import Boosted, boost, platt, with_missing

        lists = _lists(data)
        learn, judge = (_ordered(part, lists, data.y) for part in (fit, tune))
        sizes = tuple(np.unique(lists[part], return_counts=True)[1] for part in (learn, judge))
        booster = boost(
            {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "lambdarank_truncation_level": 20,
             "num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 100, "feature_fraction": 0.7},
            with_missing(data.x[learn], seed), data.y[learn], (data.x[judge], data.y[judge]),
            seed=seed, rounds=400, lists=(sizes[0], sizes[1]),
        )  # fmt: skip
        slope, intercept = platt(booster.predict(data.x[tune], raw_score=True), data.y[tune])
        return Boosted([booster], "logit", slope=slope, intercept=intercept)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the plain score, by which recommendations are ranked without a model."""
        return data.column("plain")[at].astype(np.float64)[:, None]

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return nDCG, recall and mean average precision of the lists."""
        return metrics.ranking(truth[:, 0], answers[:, 0], truth[:, 1], weights)

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return the dealers' size, by what they order lately."""
        size = data.column("dealer_lately")
        middle = float(np.median(size))
        return {"dealer=small": size <= middle, "dealer=large": size > middle}

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the candidates of dealers that ordered hardly any product yet."""
        return np.asarray(data.column("dealer_products") < _FEW)


def _lists(data: TrainingSet) -> NDArray[np.int64]:
    """The number of each row's list: one dealer at one time."""
    dealer = data.frame["dealer_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    pair = data.time // DAY_MS * (int(dealer.max()) + 1) + dealer
    return np.unique(pair, return_inverse=True)[1].astype(np.int64)


def _ordered(part: NDArray[np.int64], lists: NDArray[np.int64], y: Floats) -> NDArray[np.int64]:
    """Rows list by list, without the lists in which nothing is right: those have no order to learn."""
    right = np.bincount(lists[part], y[part], int(lists.max()) + 1) > 0
    kept = part[right[lists[part]]]
    return kept[np.argsort(lists[kept], kind="stable")]
