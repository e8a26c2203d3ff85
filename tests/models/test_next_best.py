"""Next-best products: the lists are what could be seen, the metrics are the textbook's, leaks are caught."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from features.plan import load
from models.spec import TrainingSet
from models.specs.next_best_products import NextBestProducts
from models.training import metrics
from models.training.events import Stream
from models.training.leaks import LeakError, check_leaks
from models.training.sets import build
from tests.models.served import made
from tests.models.shelves import DAY, write_shelves


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shelves")
    write_shelves(root)
    return root


@pytest.fixture(scope="module")
def data(shelves: Path) -> TrainingSet:
    return build(NextBestProducts(), load(), shelves)


def test_metrics_of_lists_are_the_textbooks() -> None:
    rng = np.random.default_rng(2)
    lists = rng.permutation(np.repeat(np.arange(30), rng.integers(12, 40, 30)))
    truth = (rng.random(len(lists)) < 0.1).astype(np.float64)
    answers = rng.random(len(lists))
    weights = rng.integers(0, 4, 30).astype(np.float64)
    wanted: dict[str, list[float]] = defaultdict(list)
    kept = []
    for each in range(30):
        t, a = truth[lists == each], answers[lists == each]
        if not t.any():
            continue
        kept.append(weights[each])
        wanted["ndcg@10"].append(ndcg_score([t], [a], k=10))
        wanted["map"].append(average_precision_score(t, a))
        wanted["recall@10"].append(t[np.argsort(-a)[:10]].sum() / t.sum())
    assert len(kept) < 30  # some lists have nothing right, and say nothing
    found = metrics.ranking(truth, answers, lists.astype(np.float64))
    weighted = metrics.ranking(truth, answers, lists.astype(np.float64), weights[lists])
    for name, values in wanted.items():
        assert found[name] == pytest.approx(np.mean(values))
        assert weighted[name] == pytest.approx(np.average(values, weights=kept))
    nothing = metrics.ranking(np.zeros(4), np.ones(4), np.zeros(4))
    assert all(np.isnan(each) for each in nothing.values())


def test_rows_are_products_that_the_dealer_did_not_have_and_labels_what_came(
    data: TrainingSet, shelves: Path
) -> None:
    """Recounted from the lines: who had ordered what by the row's time, and in the week after."""
    with Stream(shelves) as stream:
        lines = stream.events("orders", ["dealer_id", "product_id"]).to_pylist()
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    of_dealer: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for each in lines:
        times[each["dealer_id"], each["product_id"]].append(each["event_time"])
        of_dealer[each["dealer_id"]].append((each["event_time"], each["product_id"]))
    dealers, products = data.key("dealer_id"), data.key("product_id")
    assert len(data) > 3_000
    for at in range(len(data)):
        ordered = times.get((dealers[at], products[at]), [])
        now = int(data.time[at])
        assert now % DAY == 0
        assert all(each > now for each in ordered)
        assert data.y[at] == any(now < each <= now + 7 * DAY for each in ordered)
    for at in np.random.default_rng(1).choice(len(data), 40, replace=False):
        now, mine = int(data.time[at]), of_dealer[dealers[at]]
        before = {product for time, product in mine if time <= now}
        assert data.column("dealer_products")[at] == len(before)
        silent = (now - max(time for time, _ in mine if time <= now)) / DAY
        # Times are whole seconds, of the newest event that anyone had: at most a day before midnight.
        assert silent - 1 <= data.column("dealer_silent_days")[at] <= silent + 1e-3
        taken = [when[0] for (_, what), when in times.items() if what == products[at] and when[0] <= now]
        newest = max(each["event_time"] for each in lines if each["event_time"] <= now)
        decayed = sum(2 ** (-(newest - each) / (28 * DAY)) for each in taken)
        assert data.column("uptake")[at] == pytest.approx(decayed, rel=1e-3)


def test_each_dealer_is_asked_once_a_week(data: TrainingSet) -> None:
    names = sorted(set(zip(data.key("dealer_id").tolist(), data.time.tolist(), strict=True)))
    weekdays = defaultdict(set)
    for who, time in names:
        weekdays[who].add(time // DAY % 7)
    assert all(len(each) == 1 for each in weekdays.values())
    assert len(weekdays) == 40


def test_it_ranks_better_than_the_plain_score_where_there_is_something_to_learn(
    data: TrainingSet, shelves: Path, tmp_path: Path
) -> None:
    found = made("next_best_products", shelves, tmp_path, data)
    assert found.metrics["ndcg@10"] > 1.05 * found.baseline["ndcg@10"]
    assert found.metrics["recall@10"] > found.baseline["recall@10"]


class Knowing(NextBestProducts):
    """As the real one, but for a column that knows the next order."""

    def rows(self, stream: Stream) -> pa.Table:
        rows = super().rows(stream)
        after = stream.after(rows, "orders", self.entity, 20 * DAY)
        at = rows.column_names.index("@idle_days")
        return rows.set_column(at, "@idle_days", pa.array(after.astype(np.float32)))


def test_nothing_of_the_future_is_in_a_list(data: TrainingSet, shelves: Path) -> None:
    assert check_leaks(NextBestProducts(), load(), shelves, data) > 500
    knowing = build(Knowing(), load(), shelves)
    with pytest.raises(LeakError, match="idle_days"):
        check_leaks(Knowing(), load(), shelves, knowing)
