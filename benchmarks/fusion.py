"""One vector of several: text, graph and numbers side by side, beside a trained layer over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.contract import Claim, Outcome
from benchmarks.relevance import bought_with, interval, kinds_of, ndcg, pairs_of, plain
from models.fusion import Fusion, Part
from models.search.searcher import fuse
from models.text import packaged_encoder
from streams.hybrid.settings import HybridSettings

__all__ = ["measure"]

_HOW = """The catalogue's {kinds:,} kinds of product get a vector of their name (the packaged encoder), one of
the graph of orders ({dimension} numbers: positive pointwise mutual information of kinds in one
basket, factorised, which Levy and Goldberg showed in 2014 to be what walks over the graph learn) and
three numbers (products, brands, orders). The carried catalogue has no pictures and no prices. The
graph is made of its first {first:,} baskets, layers are trained on what the next {second:,} say was
bought together (ten kinds, by lift) of one half of the kinds, and judged on what the last {third:,}
say of the other half ({queries} queries): neither a kind nor a basket is in both. **Concatenation**
puts the vectors side by side, each times a weight, the best of {tried} on the training half. The
**layer** is a square matrix over that, trained from the identity by the softmax over all kinds, with
a pull back to it, stopped where a fifth of the training half gets no better. **By rank** is what a search does
with several kinds: reciprocal rank fusion of the nearest fifty of each. **Published** is what the process
`hybrid-view` makes of text and graph with its default weights. The figure is nDCG@10;
intervals are 95 %, paired, from 2,000 bootstrap samples."""
_WHY = "The interval of the paired difference reaches over zero: they cannot be told apart."
_DIMENSION = 128
_TOP = 10
_DEPTH = 50  # of a list that is fused by rank
_TEMPERATURE = 0.05
_STEPS, _PATIENCE = 300, 30
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Labels:
    """Queries, by place among the kinds, and the kinds that are right for each."""

    queries: NDArray[np.int64]
    right: list[set[int]]

    def some(self, chosen: NDArray[np.bool_]) -> _Labels:
        return _Labels(
            self.queries[chosen], [each for each, wanted in zip(self.right, chosen, strict=True) if wanted]
        )


def measure(short: bool = False, baskets: str = "") -> Outcome:
    """Make the vectors, weigh them, train the layer, and compare on kinds and baskets that neither saw."""
    count = int(baskets or (3_000 if short else 60_000))
    first, second, third = count, count // 2, count // 2
    table, names = kinds_of()
    place = {name: at for at, name in enumerate(names)}
    pairs = pairs_of(table, first + second + third)
    ids = pairs.select("order_id").unique().sort("order_id")
    earlier, middle, later = (
        pairs.join(ids.slice(start, length), on="order_id", how="semi")
        for start, length in ((0, first), (first, second), (first + second, third))
    )
    least = 3 if short else 20
    learned, judged = (_labels(bought_with(each, least), place) for each in (middle, later))
    parts = {
        "text": _text(names),
        "graph": _graph(earlier, place),
        "numbers": _numbers(table, earlier, place),
    }
    half = np.random.default_rng(3).random(len(names)) < 0.5
    train, test = learned.some(half[learned.queries]), judged.some(~half[judged.queries])
    grid = [
        dict(zip(parts, each, strict=True))
        for each in product((1.0,), (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), (0.0, 0.1, 0.3, 1.0))
    ]
    weights = max(grid, key=lambda each: float(np.mean(_scores(_beside(parts, each), train))))
    beside = _beside(parts, weights)
    layered, steps = _layer(beside, train)
    ways = {
        "text": parts["text"],
        "graph": parts["graph"],
        "concatenation": beside,
        "layer": layered,
        "published": _published(parts),
    }
    scores = {name: _scores(vectors, test) for name, vectors in ways.items()}
    ranked = {
        "by rank: text, graph": ("text", "graph"),
        "by rank: text, graph, published": ("text", "graph", "published"),
    }
    scores |= {name: _by_rank([ways[each] for each in some], test) for name, some in ranked.items()}
    rows = []
    for name, each in scores.items():
        low, high = interval(each)
        rows.append({"by": name, "nDCG@10": f"{each.mean():.3f}", "95 %": f"{low:.3f} to {high:.3f}"})
    claims = [
        _claim("concatenation above text alone", scores["concatenation"] - scores["text"]),
        _claim("concatenation above the graph alone", scores["concatenation"] - scores["graph"]),
        _claim("the trained layer above concatenation", scores["layer"] - scores["concatenation"]),
        _claim("published above text and graph by rank", scores["published"] - scores["by rank: text, graph"]),
        _claim(
            "published above itself, text and graph by rank",
            scores["published"] - scores["by rank: text, graph, published"],
        ),
    ]
    told = {"kinds": len(names), "dimension": _DIMENSION, "queries": len(test.queries), "tried": len(grid)}
    how = _HOW.format(first=first, second=second, third=third, **told)
    return Outcome(how, claims, rows, {"weights": weights, "steps": steps, "trained_on": len(train.queries)})


def _text(names: list[str]) -> _Matrix:
    return np.asarray(packaged_encoder().encode([plain(each) for each in names]), np.float64)


def _graph(pairs: pl.DataFrame, place: Mapping[str, int]) -> _Matrix:
    """Factors of the positive pointwise mutual information of kinds in a basket (SVD by Halko et al., 2011)."""
    orders = {name: at for at, name in enumerate(pairs["order_id"].unique().sort())}
    row = pairs["order_id"].replace_strict(orders, return_dtype=pl.Int64).to_numpy()
    column = pairs["product_type"].replace_strict(dict(place), return_dtype=pl.Int64).to_numpy()
    size, total = len(place), len(orders)
    together = np.zeros((size, size))
    order = np.argsort(row, kind="stable")
    for kinds in np.split(column[order], np.flatnonzero(np.diff(row[order])) + 1):
        together[np.ix_(kinds, kinds)] += 1
    alone = np.maximum(np.diag(together).copy(), 1.0)
    np.fill_diagonal(together, 0.0)
    with np.errstate(divide="ignore"):
        information = np.maximum(np.log(together * total / np.outer(alone, alone)), 0.0)
    rng = np.random.default_rng(9)
    rank = min(_DIMENSION, size)
    basis = information @ rng.standard_normal((size, rank + 16))
    for _ in range(4):
        basis, _ = np.linalg.qr(information @ (information.T @ basis))
    left, values, _ = np.linalg.svd(basis.T @ information, full_matrices=False)
    return _unit((basis @ left)[:, :rank] * np.sqrt(values[:rank]))


def _numbers(table: pl.DataFrame, pairs: pl.DataFrame, place: Mapping[str, int]) -> _Matrix:
    of = table.group_by("product_type").agg(
        pl.len().cast(pl.Float64).log1p().alias("products"),
        pl.col("brand").n_unique().cast(pl.Float64).log1p().alias("brands"),
    )
    ordered = pairs.group_by("product_type").agg(pl.len().cast(pl.Float64).log1p().alias("orders"))
    every = pl.DataFrame({"product_type": list(place)}).join(of, on="product_type", how="left")
    every = every.join(ordered, on="product_type", how="left").fill_null(0.0)
    values = every.select("products", "brands", "orders").to_numpy()
    return _unit((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9))


def _beside(parts: Mapping[str, _Matrix], weights: Mapping[str, float]) -> _Matrix:
    """Side by side: the cosine is the weighted mean of the parts' cosines."""
    return _unit(np.concatenate([np.sqrt(weights[name]) * each for name, each in parts.items()], axis=1))


def _published(parts: Mapping[str, _Matrix]) -> _Matrix:
    """What the process `hybrid-view` makes of text and graph with its default weights."""
    kinds, settings = ("text", "graph"), HybridSettings()
    fusion = Fusion(tuple(Part(kind, kind, parts[kind].shape[1], settings.weight(kind)) for kind in kinds))
    rows = [
        fusion.fuse({kind: [parts[kind][at]] for kind in kinds if parts[kind][at].any()})
        for at in range(len(parts["text"]))
    ]
    return np.asarray(rows, np.float64)


def _layer(vectors: _Matrix, labels: _Labels) -> tuple[_Matrix, int]:
    """Train a matrix from the identity on the labels; return the vectors through it, and the best step."""
    rng = np.random.default_rng(21)
    aside = rng.random(len(labels.queries)) < 0.2
    held, used = labels.some(aside), labels.some(~aside)
    wanted = np.zeros((len(used.queries), len(vectors)))
    for row, right in enumerate(used.right):
        wanted[row, sorted(right)] = 1 / len(right)
    size = vectors.shape[1]
    matrix = np.eye(size)
    best, best_score, best_step = matrix, float(np.mean(_scores(vectors, held))), 0
    first, second = np.zeros_like(matrix), np.zeros_like(matrix)
    own = np.arange(len(used.queries)), used.queries
    for step in range(1, _STEPS + 1):
        through = vectors @ matrix
        lengths = np.maximum(np.linalg.norm(through, axis=1, keepdims=True), 1e-12)
        unit = through / lengths
        near = unit[used.queries] @ unit.T / _TEMPERATURE
        near[own] = -np.inf
        near -= near.max(axis=1, keepdims=True)
        chance = np.exp(near)
        chance /= chance.sum(axis=1, keepdims=True)
        slope = (chance - wanted) / (_TEMPERATURE * len(used.queries))
        slope[own] = 0.0
        pull = slope.T @ unit[used.queries]
        np.add.at(pull, used.queries, slope @ unit)
        pull = (pull - unit * (unit * pull).sum(axis=1, keepdims=True)) / lengths
        gradient = vectors.T @ pull + 1e-3 * (matrix - np.eye(size))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        matrix = matrix - 2e-3 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        if step % 5 == 0:
            score = float(np.mean(_scores(_unit(vectors @ matrix), held)))
            if score > best_score:
                best, best_score, best_step = matrix, score, step
            elif step - best_step > _PATIENCE:
                break
    return _unit(vectors @ best), best_step


def _labels(bought: Mapping[str, set[str]], place: Mapping[str, int]) -> _Labels:
    kept = {kind: right for kind, right in sorted(bought.items()) if kind in place and right <= place.keys()}
    return _Labels(
        np.array([place[kind] for kind in kept], np.int64),
        [{place[each] for each in right} for right in kept.values()],
    )


def _scores(vectors: _Matrix, labels: _Labels) -> NDArray[np.float64]:
    near = vectors[labels.queries] @ vectors.T
    near[np.arange(len(near)), labels.queries] = -np.inf
    top = np.argpartition(-near, _TOP, axis=1)[:, :_TOP]
    order = np.argsort(-np.take_along_axis(near, top, axis=1), axis=1, kind="stable")
    ranked = np.take_along_axis(top, order, axis=1).tolist()
    return np.array([ndcg(found, right) for found, right in zip(ranked, labels.right, strict=True)])


def _by_rank(ways: Sequence[_Matrix], labels: _Labels) -> NDArray[np.float64]:
    """As a search fuses the lists of several kinds, each of the nearest fifty."""
    lists = []
    for vectors in ways:
        near = vectors[labels.queries] @ vectors.T
        near[np.arange(len(near)), labels.queries] = -np.inf
        lists.append(np.argsort(-near, axis=1, kind="stable")[:, :_DEPTH].tolist())
    found = []
    for row, right in enumerate(labels.right):
        fused = fuse({str(at): [str(each) for each in some[row]] for at, some in enumerate(lists)})
        found.append(ndcg([int(each) for each in fused][:_TOP], right))
    return np.array(found)


def _unit(values: _Matrix) -> _Matrix:
    scaled: _Matrix = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return scaled


def _claim(what: str, difference: NDArray[Any]) -> Claim:
    low, high = interval(difference)
    return Claim(f"nDCG@10, {what}: lower end of the interval", low, "", 0.0001, spread=(low, high), why=_WHY)
