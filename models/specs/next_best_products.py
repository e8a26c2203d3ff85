"""Which products a dealer takes up next: a ranking of what it does not have yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.inputs import EventField, Input, Log
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


_SCALES = {
    "plain": 100.0, "together": 100.0, "strongest": 100.0, "reached": 1.0, "backed": 10.0, "uptake": 1.0,
    "orders": 0.1, "region_orders": 0.1, "category_share": 20.0, "idle_days": 1.0,
}  # fmt: skip
"""What a candidate is told in, by column, and what brings it to the scale on which a logarithm bends."""


def _inputs() -> tuple[Input, ...]:
    logs = (Log(f"log_{name}", name, scale) for name, scale in _SCALES.items())
    return (*(EventField(name, name) for name in COLUMNS), *logs)


class NextBestProducts(ModelSpec):
    """Logistic regression on the logarithms of what speaks for a candidate of recommendations.

    A row is a candidate of a dealer at a midnight: a product that it does not have. It reads what
    recommendations read, and is asked where they are: `GET /v1/recommendations/{dealer_id}`. First orders of a
    product are rare, some ten thousand in half a year, and boosted trees (LambdaRank, and by the log loss)
    learn their chance: see the decision 0024.
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
        """Fit the lists in which anything was right; calibrate on all of the later ones."""
        from models.training.linear import logistic

        lists = _lists(data)
        learn, judge = (_telling(part, lists, data.y) for part in (fit, tune))
        logs = [at for at, each in enumerate(data.inputs) if isinstance(each, Log)]
        return logistic(data.x, data.y, learn, judge, (0.001, 0.01, 0.1), columns=logs, latest=tune)

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


def _telling(part: NDArray[np.int64], lists: NDArray[np.int64], y: Floats) -> NDArray[np.int64]:
    """Rows of lists in which something is right: the others have no order to learn."""
    right = np.bincount(lists[part], y[part], int(lists.max()) + 1) > 0
    return part[right[lists[part]]]
