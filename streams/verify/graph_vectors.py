"""Vectors of the graph in the embeddings topic against the graph that they are of.

Each node keeps the vector that was published of it, and of which encoder: the graph's space. What stands in the
topic and is of no node, or of another space than its node's, was left over by an earlier graph or an earlier
way to embed it: nobody publishes it again or takes it back. A run that is under way tells the graph a moment
after the topic, so what differs is looked at again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from neo4j import Driver

from connectors.registry import Registry
from schemas.codec import Decoder
from schemas.errors import ContractError
from streams.verify.broker import Broker
from streams.verify.findings import Finding
from streams.verify.messages import messages

__all__ = ["GraphVectorCheck", "verify_graph_vectors"]

_TOPIC, _KIND = "embeddings", "graph"
_TRIES, _LOOK_S = 4, 2.0
_PUBLISHED = """
MATCH (n:Product|Dealer) WHERE n.published IS NOT NULL
RETURN toLower(labels(n)[0]) AS type, coalesce(n.product_id, n.dealer_id) AS id, n.encoder AS encoder,
  n.published AS vector"""

Subject = tuple[str, str]
Vector = tuple[str, bytes]
"""Encoder and vector, little-endian float32."""


@dataclass
class GraphVectorCheck:
    """How many vectors were compared, of which spaces those are that were left over, and what was found."""

    vectors: int = 0
    leftover: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def verify_graph_vectors(
    driver: Driver, database: str, broker: Broker, registry: Registry, pause: Callable[[], None]
) -> GraphVectorCheck:
    """Compare all of them. Errors of Neo4j's driver pass through; raises KafkaUnavailableError."""
    differs: dict[Subject, tuple[Vector | None, Vector | None]] = {}
    for left in reversed(range(_TRIES)):
        there, published, before = _newest(broker, registry, pause), _published(driver, database), differs
        differs = {
            each: (published.get(each), there.get(each))
            for each in there.keys() | published.keys()
            if published.get(each) != there.get(each)
        }
        if not left or differs == before:
            break
        time.sleep(_LOOK_S)
    check = GraphVectorCheck(len(there))
    for subject, (wanted, found) in sorted(differs.items()):
        check.findings += _named(subject, wanted, found, check)
    return check


def _named(
    subject: Subject, wanted: Vector | None, found: Vector | None, check: GraphVectorCheck
) -> Iterator[Finding]:
    def finding(kind: str, expected: object, came: object) -> Finding:
        who = ("/".join(subject), _KIND)
        return Finding(kind, "topic", _TOPIC, who, "vector", "", expected, came)  # type: ignore[arg-type]

    if found is None:
        yield finding("missing-vector", wanted and wanted[0], None)
    elif wanted is None or wanted[0] != found[0]:
        check.leftover[found[0]] = check.leftover.get(found[0], 0) + 1
        yield finding("leftover-vector", wanted[0] if wanted else "none: it is not in the graph", found[0])
    else:
        yield finding("vector", "the vector that its node keeps", "another one")


def _published(driver: Driver, database: str) -> dict[Subject, Vector]:
    found = driver.execute_query(_PUBLISHED, database_=database, routing_="r").records
    return {(row["type"], row["id"]): (row["encoder"], bytes(row["vector"])) for row in found}


def _newest(broker: Broker, registry: Registry, pause: Callable[[], None]) -> dict[Subject, Vector]:
    decoder = Decoder.of_topic(_TOPIC, registry.schema)
    keys: dict[str, tuple[Subject, Vector]] = {}
    for each in messages(broker, _TOPIC, broker.ends(_TOPIC), pause):
        keys.pop(each.key, None)
        if each.value is None:
            continue
        try:
            record = decoder.decode(each.value)
        except ContractError:
            continue  # it is a dead letter
        if record["kind"] == _KIND:
            subject = record["subject_type"], record["subject_id"]
            keys[each.key] = subject, (record["encoder"], record["vector"])
    return dict(keys.values())
