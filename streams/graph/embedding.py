"""Graph embeddings: computed where the graph lives, and published where they changed.

A run projects the graph into Graph Data Science, has it embedded, and compares the vector of each product and
dealer with the one last published, which its node keeps. What moved further than a tolerance goes to
`embeddings` under kind `graph`; what is no longer offered is taken back by a tombstone. A node learns that
its vector is published after Kafka has it, so a crash publishes at most the batch in flight again; where the
view has removed the node meanwhile it comes back for that, and the next run takes the vector back.

FastRP starts each node from a random vector of its own, made of the seed and the node's id in the store. The
same graph gives the same vectors, and a node keeps its base from run to run; a graph that was made anew gives
others. Vectors of two such spaces cannot be compared, so the encoder's identity carries the space, kept in
the graph.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
from neo4j import Driver, ManagedTransaction, Session
from neo4j.exceptions import ClientError

from connectors.kafka import Producer
from connectors.neo4j.settings import GraphSettings
from schemas.errors import DealerIQError
from streams.graph.algorithms import ALGORITHMS, LABELS, PROJECT, RELATIONS
from streams.publishing import SubjectVector, VectorPublisher, moved
from streams.publishing import chunk_of as chunk_of_kind

__all__ = ["EmbeddingRun", "GraphEmbedder", "GraphMemoryError", "chunk_of"]

_KIND = "graph"
_SOURCE = "dealeriq/graph-embedder"
_BATCH = 1_000
_KINDS = {"Product": "product", "Dealer": "dealer"}

_SPACE = """
MERGE (s:Space {name: 'embeddings'}) ON CREATE SET s.id = $fresh
RETURN s.id AS id"""
_TOKENS = """
CALL db.labels() YIELD label RETURN label AS name
UNION CALL db.relationshipTypes() YIELD relationshipType RETURN relationshipType AS name"""
_PUBLISHED = """
MATCH (n:Product|Dealer) WHERE n.published IS NOT NULL
RETURN labels(n)[0] AS label, coalesce(n.product_id, n.dealer_id) AS id, n.published AS vector,
  n.encoder AS encoder"""
_KEEP: Mapping[str, LiteralString] = {
    "product": """
UNWIND $rows AS row MERGE (n:Product {product_id: row[0]}) SET n.published = row[1], n.encoder = row[2]""",
    "dealer": """
UNWIND $rows AS row MERGE (n:Dealer {dealer_id: row[0]}) SET n.published = row[1], n.encoder = row[2]""",
}
_FORGET: Mapping[str, LiteralString] = {
    "product": """
UNWIND $rows AS row MATCH (n:Product {product_id: row[0]}) REMOVE n.published, n.encoder
WITH n WHERE n.event_time IS NULL AND NOT EXISTS { (n)--() } DELETE n""",
    "dealer": """
UNWIND $rows AS row MATCH (n:Dealer {dealer_id: row[0]}) REMOVE n.published, n.encoder
WITH n WHERE n.event_time IS NULL AND NOT EXISTS { (n)--() } DELETE n""",
}


class GraphMemoryError(DealerIQError):
    """Neo4j's heap is too small for the graph and the embedding."""

    remedy = "Raise graph.heap_mb (elsewhere the server's own heap), or lower graph.embedding_dimension."
    exit_code = 4


@dataclass
class EmbeddingRun:
    """What a run did: vectors computed, published, not changed enough, and taken back; and its seconds."""

    encoder: str
    vectors: int = 0
    published: int = 0
    unchanged: int = 0
    deleted: int = 0
    computing_s: float = 0.0
    seconds: float = 0.0


def chunk_of(subject_type: str, identity: str) -> str:
    """Return the key under which a product's or dealer's graph vector stands in the embeddings topic."""
    return chunk_of_kind(_KIND, subject_type, identity)


class GraphEmbedder:
    """Runs embeddings over the graph of one database. Errors of Neo4j's driver pass through.

    Args:
        driver: of the server, which has Graph Data Science.
        settings: the algorithm, its dimension and seed, and how far a vector must move to be published.
        producer: where embeddings go.
        schema_id: the registry's id of the schema of embeddings.
    """

    def __init__(self, driver: Driver, settings: GraphSettings, producer: Producer, schema_id: int) -> None:
        self._driver, self._settings = driver, settings
        self._publisher = VectorPublisher(producer, schema_id, _KIND, _SOURCE)

    def run(self) -> EmbeddingRun:
        """Embed, and publish what changed. Raises GraphMemoryError, KafkaUnavailableError."""
        began, settings = time.monotonic(), self._settings
        with self._driver.session(database=settings.database) as session:
            space = session.run(_SPACE, fresh=uuid.uuid4().hex[:8]).single(strict=True)["id"]
            name = f"graph-{settings.embedding}-{settings.embedding_dimension}"
            run = EmbeddingRun(f"{name}@{space}.{settings.embedding_seed}")
            computed = self._computed(session, run.encoder)
            run.vectors, run.computing_s = len(computed), time.monotonic() - began
            known = {(each.type, each.id): each for each in map(_node, session.run(_PUBLISHED))}
            there = {(each.type, each.id) for each in computed}
            changed = [each for each in computed if self._moved(each, known.get((each.type, each.id)))]
            gone = [each._replace(vector=b"") for name, each in known.items() if name not in there]
            self._publish(session, changed, _KEEP)
            self._publish(session, gone, _FORGET)
        run.published, run.deleted = len(changed), len(gone)
        run.unchanged = len(computed) - len(changed)
        run.seconds = time.monotonic() - began
        return run

    def _computed(self, session: Session, encoder: str) -> list[SubjectVector]:
        """The vectors of everything that is offered; a node without a relation has none."""
        settings, name = self._settings, f"dealeriq-{uuid.uuid4().hex[:12]}"
        algorithm = ALGORITHMS[settings.embedding]
        tokens = {row["name"] for row in session.run(_TOKENS)}
        labels = [each for each in LABELS if each in tokens]
        relations = {each: {"orientation": "UNDIRECTED"} for each in RELATIONS if each in tokens}
        if not relations:
            return []
        parameters: dict[str, Any] = {
            "name": name, "dimension": settings.embedding_dimension, "seed": settings.embedding_seed,
            "threads": algorithm.threads,
        }  # fmt: skip
        found = []
        try:
            session.run(PROJECT, name=name, labels=labels, relations=relations).consume()
            for statement in algorithm.before:
                session.run(statement, parameters).consume()
            for row in session.run(algorithm.stream, parameters):
                vector = np.asarray(row["vector"], dtype="<f4")
                if vector.any() and np.isfinite(vector).all():
                    found.append(SubjectVector(_KINDS[row["label"]], row["id"], vector.tobytes(), encoder))
        except ClientError as error:
            if "memory" not in str(error):
                raise
            raise GraphMemoryError(f"{settings.embedding} does not fit into Neo4j's memory: {error}") from error
        finally:
            session.run("CALL gds.graph.drop($name, false) YIELD graphName", name=name).consume()
            for statement in algorithm.after:
                session.run(statement, parameters).consume()
        return found

    def _moved(self, each: SubjectVector, known: SubjectVector | None) -> bool:
        """Whether a vector is another than the published one."""
        if known is None or known.encoder != each.encoder:
            return True
        return moved(each.vector, known.vector, self._settings.embedding_tolerance)

    def _publish(
        self, session: Session, nodes: Sequence[SubjectVector], told: Mapping[str, LiteralString]
    ) -> None:
        """Produce in batches, and tell the graph of each batch once Kafka has it."""
        for start in range(0, len(nodes), _BATCH):
            batch = nodes[start : start + _BATCH]
            self._publisher.publish(batch)
            for kind, statement in told.items():
                rows = [[each.id, each.vector, each.encoder] for each in batch if each.type == kind]
                if rows:
                    # The view writes the same nodes: the driver repeats what a deadlock with it ended.
                    session.execute_write(_tell, statement, rows)


def _tell(transaction: ManagedTransaction, statement: LiteralString, rows: list[list[Any]]) -> None:
    transaction.run(statement, rows=rows).consume()


def _node(row: Any) -> SubjectVector:
    return SubjectVector(_KINDS[row["label"]], row["id"], bytes(row["vector"]), row["encoder"])
