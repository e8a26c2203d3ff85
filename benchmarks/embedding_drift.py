"""How often a stationary window of vectors is called drifted, and how small a change is found."""

from __future__ import annotations

import numpy as np
import polars as pl

from benchmarks.contract import Claim, Outcome
from connectors import demo_data
from models.embedding import split
from models.embedding.shift import Sample, shift
from models.text import packaged_encoder

__all__ = ["measure"]

_HOW = """Vectors of {owners:,} products of the catalogue by the packaged encoder, drawn {runs} times into a
reference of four windows ({reference} products) and a later one ({window}), and judged as the watch does, at
1 % and at 5 %. *Stationary*: both are drawn alike; the interval is Wilson's, 95 %. *Weeks differ*: each window
is drawn from departments with shares of its own (Dirichlet, {concentration} times the usual shares). *Changed*:
a share of the window is of one department, {department}, alone; found at 1 %."""
_PARTS = (0.05, 0.1, 0.2)
_CONCENTRATION = 200


def measure(short: bool = False, runs: str = "") -> Outcome:
    """Draw windows again and again from real vectors."""
    owners, reference, window = (600, 160, 40) if short else (6_000, 800, 200)
    count = int(runs or (10 if short else 1_000))
    vectors, departments = _vectors(owners)
    draws = _Draws(vectors, departments, reference, window)
    rows, claims = [], []
    for asked in (0.01, 0.05):
        for name, unlike in (("stationary", False), ("weeks differ", True)):
            hits = sum(draws.alarm(run, asked, unlike=unlike) for run in range(count))
            low, high = _wilson(hits, count)
            interval = f"{100 * low:.2f} to {100 * high:.2f} %"
            rows.append({"stream": name, "asked": f"{asked:.0%}", "alarms": f"{hits / count:.2%} ({interval})"})
            if not unlike:
                what = f"stationary, asked for {asked:.0%}: lower end of the interval"
                claims.append(Claim(what, round(100 * low, 3), "%", 100 * asked, at_most=True))
                what = f"stationary, asked for {asked:.0%}: upper end of the interval"
                claims.append(Claim(what, round(100 * high, 3), "%", 100 * asked))
    for part in _PARTS:
        some = max(5, count // 10)
        found = sum(draws.alarm(run, 0.01, part=part) for run in range(some))
        rows.append({"stream": f"{part:.0%} of one department", "asked": "1%", "alarms": f"{found} of {some}"})
    words = {"owners": owners, "runs": count, "reference": reference, "window": window}
    return Outcome(
        _HOW.format(**words, concentration=_CONCENTRATION, department=draws.name),
        claims,
        rows,
        {"department_share": draws.share},
    )


class _Draws:
    """Windows drawn from vectors of products, each of a department."""

    def __init__(self, vectors: np.ndarray, departments: list[str], reference: int, window: int) -> None:
        self._vectors, self._sizes = vectors, (reference, window)
        names, self._of, counts = np.unique(departments, return_inverse=True, return_counts=True)
        self._shares = counts / counts.sum()
        chosen = int(np.argsort(counts)[-3])  # neither the largest nor a rare one
        self.name, self.share = str(names[chosen]), float(self._shares[chosen])
        self._alone = np.flatnonzero(self._of == chosen)

    def alarm(self, seed: int, asked: float, *, unlike: bool = False, part: float = 0.0) -> bool:
        """Whether the window of one stream is called drifted."""
        rng = np.random.default_rng(seed)
        reference, window = self._sizes
        order = rng.permutation(len(self._vectors))
        if unlike:
            each = reference // 4
            groups = [self._unlike(rng, order, size) for size in (each, each, each, each, window)]
        else:
            groups = [*np.split(order[:reference], 4), order[reference : reference + window]]
        if part:
            count = round(part * window)
            groups[-1] = np.concatenate([groups[-1][count:], rng.choice(self._alone, count, replace=False)])
        before = np.concatenate(groups[:-1])
        labels = np.repeat(np.arange(4), len(before) // 4)
        samples = [
            Sample(self._vectors[rows], [f"{name}/{at}" for at in range(len(rows))], which)
            for name, rows, which in (("r", before, labels), ("w", groups[-1], np.zeros(len(groups[-1]), int)))
        ]
        return shift(*samples, false_alarms=asked, draws=max(199, round(2 / asked) - 1), seed=seed).alarm

    def _unlike(self, rng: np.random.Generator, order: np.ndarray, size: int) -> np.ndarray:
        """Products of one window, whose departments have shares of their own."""
        shares = rng.dirichlet(self._shares * _CONCENTRATION)
        weight = (shares / self._shares)[self._of]
        chosen: np.ndarray = rng.choice(len(order), size, replace=False, p=weight / weight.sum())
        return chosen


def _vectors(owners: int) -> tuple[np.ndarray, list[str]]:
    table = demo_data.source("products").frame(0, 92_331)
    table = table.filter(pl.col("category").is_not_null()).sample(owners, seed=1)
    records = table.select("product_id", "name", "product_type", "subcategory", "category", "brand").to_dicts()
    texts = [split("products", each["product_id"], {**each, "deleted": False})[0].text for each in records]
    return packaged_encoder().encode(texts), [each["category"] for each in records]


def _wilson(hits: int, runs: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share (Wilson, 1927)."""
    share = hits / runs
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * np.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return max(0.0, float(middle - half)), float(middle + half)
