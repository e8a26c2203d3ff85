"""What search finds, judged by labels that it cannot see: hybrid beside meaning alone and words alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.contract import Claim, Outcome
from connectors import demo_data
from connectors.vectors import Encoding, Entry
from connectors.vectors.edge import EdgeIndex
from connectors.vectors.lexical import Lexical
from models.embedding import Owner, split
from models.search.fields import CHUNK, KEYWORDS, NUMBERS, TEXT
from models.search.request import SearchRequest
from models.search.searcher import Searcher
from models.search.vocabulary import Vocabulary
from models.text import packaged_encoder

__all__ = ["bought_with", "interval", "kinds_of", "measure", "ndcg", "pairs_of", "plain"]

_HOW = """The catalogue's {types:,} kinds of product are indexed by name alone. Two sets of queries are
judged by what the index was not told. **Classes** ({classes} queries): the name of a category, such as
"tropical fruit"; right are the kinds that the catalogue has in it. **Baskets** ({baskets} queries): the
name of a kind; right are the ten kinds bought with it most above chance (lift, {bought:,} baskets of the
carried year, pairs in 20 or more), itself left out. The figure is nDCG@10; intervals are 95 %, from 2,000
bootstrap samples of the queries, paired where two are compared."""
_WHY = "The interval of the paired difference reaches over zero: on this set they cannot be told apart."
_TOP = 10
_LEAST = 20
_Ranked = Callable[[str, str | None], Sequence[str]]


def measure(short: bool = False, baskets: str = "") -> Outcome:
    """Index the kinds, ask every query three ways, and compare."""
    kinds, _ = kinds_of()
    labels = dict(
        kinds.group_by("product_type")
        .agg(pl.col("subcategory").mode().sort().first())
        .sort("product_type")
        .rows()
    )
    classes: dict[str, set[str]] = {}
    for kind, name in labels.items():
        classes.setdefault(name, set()).add(kind)
    queries: list[tuple[str, str | None, set[str]]] = [
        (plain(name), None, right) for name, right in sorted(classes.items()) if len(right) >= 2
    ]
    count = int(baskets or (2_000 if short else 60_000))
    bought = bought_with(pairs_of(kinds, count))
    queries_of: dict[str, list[tuple[str, str | None, set[str]]]] = {
        "classes": queries,
        "baskets": [(plain(kind), kind, right) for kind, right in sorted(bought.items())],
    }
    if short:
        queries_of = {name: each[:30] for name, each in queries_of.items()}
    with tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder:
        ways = _ways(Path(folder), list(labels))
        scores = {
            (name, way): np.array([ndcg(ranked(text, own), right) for text, own, right in some])
            for name, some in queries_of.items()
            for way, ranked in ways.items()
        }
    both = {way: np.concatenate([scores[name, way] for name in queries_of]) for way in ways}
    rows = [_row(name, way, scores[name, way]) for name in queries_of for way in ways]
    rows += [_row("both", way, each) for way, each in both.items()]
    claims = [_claim(other, both["hybrid"] - both[other]) for other in ("meaning", "words")]
    words = {"types": len(labels), "classes": len(queries_of["classes"]), "baskets": len(queries_of["baskets"])}
    return Outcome(_HOW.format(bought=count, **words), claims, rows)


def _ways(folder: Path, kinds: Sequence[str]) -> Mapping[str, _Ranked]:
    encoder, lexical, vocabulary = packaged_encoder(), Lexical(), Vocabulary()
    index = EdgeIndex(
        folder / "index", {TEXT: Encoding(encoder.identity, encoder.dimension)}, KEYWORDS, NUMBERS
    )
    chunks = []
    for kind in kinds:
        record = {"product_id": kind, "name": plain(kind), "deleted": False}
        chunks += [(kind, each) for each in split("products", kind, record)]
    vectors = encoder.encode([each.text for _, each in chunks])
    entries = []
    for (kind, chunk), vector in zip(chunks, vectors, strict=True):
        fields = {
            "entry": CHUNK, "owner": str(Owner("product", kind)), "type": "product", "subject_id": kind,
            "text": chunk.text, "live": "true",
        }  # fmt: skip
        entries.append(Entry(chunk.id, fields, {TEXT: vector}, lexical.document(chunk.text)))
        vocabulary.add(chunk.text)
    index.put(entries)
    searcher = Searcher(index, encoder, vocabulary)

    def without(found: Sequence[str], own: str | None) -> list[str]:
        return [each for each in found if each != own][:_TOP]

    def meaning(text: str, own: str | None) -> list[str]:
        vector = encoder.encode([text])[0]
        return without([each.fields["subject_id"] for each in index.near(TEXT, vector, _TOP + 1)], own)

    def by_words(text: str, own: str | None) -> list[str]:
        found = index.matching(lexical.query(text), _TOP + 1)
        return without([each.fields["subject_id"] for each in found], own)

    def hybrid(text: str, own: str | None) -> list[str]:
        answer = searcher.search(SearchRequest(text=text, limit=_TOP + 1, correct=False))
        return without([each.id for each in answer.hits], own)

    return {"hybrid": hybrid, "meaning": meaning, "words": by_words}


def kinds_of() -> tuple[pl.DataFrame, list[str]]:
    """Return the catalogue's products that have a kind and a category, and the names of their kinds."""
    table = demo_data.source("products").frame(0, 92_331)
    kinds = table.filter(pl.col("product_type").is_not_null() & pl.col("subcategory").is_not_null())
    return kinds, kinds["product_type"].unique().sort().to_list()


def pairs_of(kinds: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return each kind of each of the first `count` baskets of the carried year."""
    lines = demo_data.source("orders")
    some = lines.frame(0, min(len(lines), count * 10)).select("order_id", "product_id")
    pairs = some.join(kinds.select("product_id", "product_type"), on="product_id").select(
        "order_id", "product_type"
    )
    pairs = pairs.unique()
    chosen = pairs.select("order_id").unique().sort("order_id").head(count)
    return pairs.join(chosen, on="order_id", how="semi")


def bought_with(pairs: pl.DataFrame, least: int = _LEAST) -> dict[str, set[str]]:
    """Kind → the ten kinds that are bought with it most above chance, of pairs in `least` baskets or more."""
    total = pairs["order_id"].n_unique()
    alone = pairs.group_by("product_type").len("alone")
    joined = pairs.join(pairs, on="order_id", suffix="_with").filter(
        pl.col("product_type") != pl.col("product_type_with")
    )
    together = joined.group_by("product_type", "product_type_with").len("together")
    together = together.filter(pl.col("together") >= least)
    together = together.join(alone, on="product_type").join(
        alone.rename({"product_type": "product_type_with", "alone": "alone_with"}), on="product_type_with"
    )
    lift = pl.col("together") * total / (pl.col("alone") * pl.col("alone_with"))
    ranked = together.with_columns(lift=lift).filter(pl.col("lift") > 1)
    ranked = ranked.sort(["product_type", "lift", "product_type_with"], descending=[False, True, False])
    top = ranked.group_by("product_type", maintain_order=True).head(_TOP)
    found: dict[str, set[str]] = {}
    for kind, other in top.select("product_type", "product_type_with").rows():
        found.setdefault(kind, set()).add(other)
    return {kind: right for kind, right in found.items() if len(right) == _TOP}


def ndcg(ranked: Sequence[Any], right: set[Any]) -> float:
    """Normalised discounted cumulative gain of the first ten; a hit is right or it is not."""
    gain = sum(1 / np.log2(place + 2) for place, each in enumerate(ranked[:_TOP]) if each in right)
    most = sum(1 / np.log2(place + 2) for place in range(min(_TOP, len(right))))
    return float(gain / most)


def interval(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The 95 % interval of the mean, from 2,000 bootstrap samples."""
    rng = np.random.default_rng(11)
    means = values[rng.integers(0, len(values), (2_000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _row(name: str, way: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    low, high = interval(values)
    return {
        "queries": name, "by": way, "nDCG@10": f"{values.mean():.3f}", "95 %": f"{low:.3f} to {high:.3f}",
    }  # fmt: skip


def _claim(other: str, difference: np.ndarray[Any, Any]) -> Claim:
    """The lower end of the interval of the paired difference is above zero."""
    low, high = interval(difference)
    what = f"nDCG@10, hybrid above {other} alone: lower end of the interval"
    return Claim(what, low, "", 0.0001, spread=(low, high), why=_WHY)


def plain(name: str) -> str:
    """A name of the catalogue as people write it: `FRZN ICE` is searched for as it is, in lower case."""
    return " ".join(name.replace("/", " ").replace(":", " ").replace("-", " ").lower().split())
