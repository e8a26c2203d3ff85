"""The model of next-best products for `./run bench recommend`: trained as of a day, and its lists judged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.contract import Claim
from benchmarks.history import lake_topic
from dealeriq.training import child
from models.runtime import RuntimeSettings, Session
from streams.recommend.ranker import MODEL, ModelRanker

__all__ = ["OneSignal", "claims", "interval", "judged", "table", "trained"]

Floats = NDArray[np.float64]
METRICS = {"recall@10": "recall", "nDCG@10": "ndcg", "MAP": "map"}
MODEL_WAY, PLAIN_WAY = "next-best products", "the plain score"
_TOP, _COLD = 10, 30
_FEW_FIRST_ORDERS = (
    "First orders are few: the gain is within what chance gives. A version that its gate refuses ranks "
    "nothing, and the plain score does. Boosted trees (LambdaRank) were tried and are worse."
)


class OneSignal:
    """Ranks candidates by one column alone: a baseline."""

    def __init__(self, name: str) -> None:
        self.version, self._name = name, name

    def at(self, now_s: int) -> Callable[[Mapping[str, Floats]], Floats]:
        """Return what picks the column."""
        return lambda columns: columns[self._name]


def trained(folder: Path, lines: pl.DataFrame, regions: pl.DataFrame, as_of_ms: int) -> tuple[Any, ModelRanker]:
    """Train as `dealeriq models train` does, from a lake that ends at `as_of_ms`; the result and the ranker."""
    lake_topic(folder / "lake", "orders", lines.filter(pl.col("event_time") < as_of_ms))
    lake_topic(folder / "lake", "dealers", regions)
    job = {
        "model": MODEL, "lake": str(folder / "lake"), "folder": str(folder / "models"),
        "data_dir": str(folder), "request": "bench", "as_of_ms": as_of_ms,
        "mlflow": {"url": "http://127.0.0.1:9", "timeout_s": 1},
    }  # fmt: skip
    result = child("training.run", job, progress=lambda line: print(line, file=sys.stderr, flush=True))
    print(result["text"], file=sys.stderr, flush=True)
    return result, ModelRanker(Session(Path(result["folder"]), RuntimeSettings(threads=1)))


def judged(ranked: Sequence[str], right: set[str]) -> dict[str, float]:
    """Return the metrics of one list, over everything that was right, whether it was a candidate or not."""
    hits = [place for place, each in enumerate(ranked) if each in right]
    best = sum(1 / np.log2(place + 2) for place in range(min(_TOP, len(right))))
    return {
        "recall": sum(place < _TOP for place in hits) / len(right),
        "ndcg": float(sum(1 / np.log2(place + 2) for place in hits if place < _TOP) / best),
        "map": float(sum((nth + 1) / (place + 1) for nth, place in enumerate(hits)) / len(right)),
    }


def interval(dealers: NDArray[Any], values: NDArray[Any]) -> tuple[float, float]:
    """95 % of the means of samples of whole dealers."""
    _, which = np.unique(dealers, return_inverse=True)
    total, count = np.bincount(which, values), np.bincount(which)
    drawn = np.random.default_rng(11).integers(0, len(total), (2_000, len(total)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def table(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return a line for each way, with the interval of each metric."""
    lines = []
    for (way,), some in rows.group_by(["by"], maintain_order=True):
        row: dict[str, Any] = {"": way}
        for label, name in METRICS.items():
            low, high = interval(some["dealer"].to_numpy(), some[name].to_numpy())
            row |= {
                label: f"{float(some[name].to_numpy().mean()):.4f}",
                f"95 %, {name}": f"{low:.4f} to {high:.4f}",
            }
        lines.append(row)
    return lines


def claims(rows: pl.DataFrame) -> tuple[list[Claim], list[dict[str, Any]]]:
    """Return what the model gains over the plain score, and the same for small, large and cold dealers."""
    made = []
    for label, name in METRICS.items():
        gained = _gain(rows, name)
        what = f"next-best products: {label} above the plain score's: lower end of the interval"
        spread = (gained["low"], gained["high"])
        made.append(Claim(what, gained["low"], "", 0.0001, spread=spread, why=_FEW_FIRST_ORDERS))
    middle = float(np.median(rows["size"].to_numpy()))
    parts = {
        "small dealers": pl.col("size") <= middle,
        "large dealers": pl.col("size") > middle,
        f"cold dealers (fewer than {_COLD} products so far)": pl.col("known") < _COLD,
    }
    segments = [{"": part, **_gain(some, "ndcg")} for part, of in parts.items() if len(some := rows.filter(of))]
    return made, segments


def _gain(rows: pl.DataFrame, name: str) -> dict[str, Any]:
    ours, plain = (rows.filter(pl.col("by") == way) for way in (MODEL_WAY, PLAIN_WAY))
    apart = ours[name].to_numpy() - plain[name].to_numpy()
    low, high = interval(ours["dealer"].to_numpy(), apart)
    return {
        "lists": len(ours), "ours": round(float(ours[name].to_numpy().mean()), 4),
        "plain": round(float(plain[name].to_numpy().mean()), 4), "gain": round(float(apart.mean()), 4),
        "low": low, "high": high,
    }  # fmt: skip
