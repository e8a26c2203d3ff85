"""Both encoders of a system on the texts that both have encoded, by labelled queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connectors.redis import connect
from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.reindex.compare import (
    Labelled,
    LabelsError,
    Vectors,
    compared,
    interval,
    labels_of_file,
    ndcg,
    owners_ranked,
    vectors_of,
)
from dealeriq.settings import Settings
from models.embedding.topics import FIRST, SECOND, Homes
from models.search.adapter import LEAST, VectorMap
from models.text import Encoder, text_encoder
from schemas.codec import Decoder
from schemas.errors import ContractError

__all__ = ["common", "cross_fitted", "judged"]

_READ_S = 600.0
_LEAST, _MOST = 2, 500


def judged(settings: Settings, to_come: Encoder, labels: Path | None) -> dict[str, Any]:
    """Return what `compared` says of both, and the gain. Raises LabelsError, KafkaUnavailableError."""
    in_use, old, new = common(settings, to_come)
    owners = set(old.owners)
    found = labels_of_file(labels) if labels is not None else _classes(settings)
    queries = [Labelled(each.query, each.right & owners) for each in found if each.right & owners]
    if not queries:
        raise LabelsError(
            f"of {len(found):,} queries none has a right owner among {len(old.chunks):,} chunks of both"
        )
    before, gains = compared(in_use, old, queries)
    after, gains_after = compared(to_come, new, queries)
    low, high = interval(gains_after - gains)
    adapted = cross_fitted(in_use, to_come, old, new, queries)
    return {
        "adapted": adapted,
        "in_use": before,
        "to_come": after,
        "queries": len(queries),
        "chunks": len(old.chunks),
        "gain": {"mean": float((gains_after - gains).mean()), "low": low, "high": high},
    }


def cross_fitted(
    in_use: Encoder, to_come: Encoder, old: Vectors, new: Vectors, queries: Sequence[Labelled]
) -> dict[str, float] | None:
    """Return nDCG@10 of the old vectors searched by adapted queries; None where a map has too few texts.

    Each half of the texts is searched by the map of the other half, so no text was fitted on.
    """
    halves = [np.arange(len(old.chunks)) % 2 == at for at in (0, 1)]
    if min(int(half.sum()) for half in halves) < LEAST:
        return None
    vectors = to_come.encode([each.query for each in queries])
    scores = np.empty((len(queries), len(old.chunks)), np.float32)
    for half in halves:
        fitted = VectorMap.fitted(in_use.identity, to_come.identity, old.matrix[~half], new.matrix[~half])
        for at, vector in enumerate(vectors):
            scores[at, half] = fitted.scores(vector, old.matrix[half])
    gains = np.array(
        [ndcg(owners_ranked(row, old), each.right) for row, each in zip(scores, queries, strict=True)],
        np.float32,
    )
    low, high = interval(gains)
    return {"ndcg": float(gains.mean()), "low": low, "high": high}


def common(settings: Settings, to_come: Encoder) -> tuple[Encoder, Vectors, Vectors]:
    """Return the encoder in use, and both encoders' vectors of the chunks that both have."""
    homes, in_use = Homes(connect(settings.redis)), text_encoder(settings.text)
    old = vectors_of(settings, homes.of(in_use.identity) or FIRST, in_use)
    new = vectors_of(settings, homes.of(to_come.identity) or SECOND, to_come)
    there = set(new.chunks)
    both = [name for name in old.chunks if name in there]
    return in_use, old.of(both), new.of(both)


def _classes(settings: Settings) -> list[Labelled]:
    """Names of subcategories as queries; right are the products in them."""
    decoder = Decoder.of_topic("products", Registry(settings.registry).schema)
    whole, named = WholeTopic(settings.kafka, "products", "dealeriq-compare"), dict[str, str | None]()
    try:
        for message in whole.records(_READ_S):
            key = (message.key() or b"").decode(errors="replace")
            try:
                record = None if message.value() is None else decoder.decode(message.value())
            except ContractError:
                continue
            named[key] = None if record is None or record["deleted"] else record["subcategory"]
    finally:
        whole.close()
    found: dict[str, set[str]] = {}
    for key, name in named.items():
        if name:
            found.setdefault(name, set()).add(f"product/{key}")
    some = [(name, right) for name, right in sorted(found.items()) if len(right) >= _LEAST]
    step = max(1, len(some) // _MOST)
    return [Labelled(name.replace("/", " ").lower(), frozenset(right)) for name, right in some[::step]]
