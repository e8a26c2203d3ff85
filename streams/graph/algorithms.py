"""The embeddings that Graph Data Science computes, by name: what runs before, what gives the vectors.

- `fastrp`: Fast Random Projection (Chen et al., CIKM 2019). Neighbours of high degree say less, as in inverse
  document frequency (`normalizationStrength`).
- `node2vec`: random walks and skip-gram (Grover and Leskovec, KDD 2016).
- `graphsage`: a network that aggregates neighbours (Hamilton et al., NeurIPS 2017), trained on what FastRP
  gives.

The last two are repeatable on one thread only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

__all__ = ["ALGORITHMS", "LABELS", "PROJECT", "RELATIONS", "Algorithm"]

LABELS = ("Dealer", "Product", "Category", "Region", "Order")
RELATIONS = ("IN", "OF", "UNDER", "STOCKS", "ORDERED", "HOLDS")
"""What an embedding sees of the graph, in both directions."""

PROJECT = "CALL gds.graph.project($name, $labels, $relations) YIELD nodeCount"

# Only what is offered and known is embedded for others; orders and classes are there to be walked over.
_KEPT = """
WITH gds.util.asNode(nodeId) AS n, embedding
WHERE n.event_time IS NOT NULL AND (n:Dealer OR (n:Product AND n.deleted = false))
RETURN labels(n)[0] AS label, coalesce(n.product_id, n.dealer_id) AS id, embedding AS vector"""

_FASTRP = """{
  embeddingDimension: $dimension, randomSeed: $seed, concurrency: $threads,
  iterationWeights: [0.0, 1.0, 1.0], normalizationStrength: -0.5"""


@dataclass(frozen=True)
class Algorithm:
    """Statements with the parameters name, dimension, seed and threads."""

    stream: LiteralString
    threads: int = 1
    before: tuple[LiteralString, ...] = ()
    after: tuple[LiteralString, ...] = ()


ALGORITHMS: Mapping[str, Algorithm] = {
    "fastrp": Algorithm(
        "CALL gds.fastRP.stream($name, " + _FASTRP + "}) YIELD nodeId, embedding" + _KEPT, threads=2
    ),
    "node2vec": Algorithm(
        """CALL gds.node2vec.stream($name, {
  embeddingDimension: $dimension, randomSeed: $seed, concurrency: $threads, walkLength: 20, walksPerNode: 5
}) YIELD nodeId, embedding"""
        + _KEPT
    ),
    "graphsage": Algorithm(
        "CALL gds.beta.graphSage.stream($name, {modelName: $name, concurrency: $threads})"
        " YIELD nodeId, embedding" + _KEPT,
        before=(
            "CALL gds.fastRP.mutate($name, " + _FASTRP + ", mutateProperty: 'start'}) YIELD nodeCount",
            """CALL gds.beta.graphSage.train($name, {
  modelName: $name, featureProperties: ['start'], embeddingDimension: $dimension, randomSeed: $seed,
  concurrency: $threads, epochs: 1, sampleSizes: [10, 5]
}) YIELD trainMillis""",
        ),
        after=("CALL gds.model.drop($name, false) YIELD modelName",),
    ),
}
