"""Verify names what of a graph its topics do not say: each kind of damage, and nothing where there is none."""

import threading
import time
import uuid

import numpy as np
import pytest
from graph_world import TOPICS, Network, dealer, told

from connectors.kafka import ensure_topics, producer
from connectors.neo4j.driver import connect
from connectors.registry import Registry
from schemas.codec import Encoder
from schemas.envelope import headers
from streams.graph import cypher
from streams.graph.embedding import GraphEmbedder
from streams.graph.store import GraphStore, position_in
from streams.publishing import SubjectVector, VectorPublisher
from streams.verify.broker import Broker
from streams.verify.graph import verify_graph
from streams.verify.graph_vectors import verify_graph_vectors
from streams.views.graph_view import GRAPH_VIEW, GraphView
from streams.views.runner import ViewRunner

OWN = "d.dealer_id STARTS WITH $mark"
LINES = (
    f"MATCH (d:Dealer)-[:PLACED]->(o:Order)-[l:HOLDS]->(p:Product) WHERE {OWN} "
    "WITH o, l, p, l.event_id AS id ORDER BY id, o.dealer_id"
)
PAIRS = f"MATCH (d:Dealer)-[r:ORDERED]->(p:Product) WHERE {OWN} WITH d, r, p ORDER BY p.product_id, d.dealer_id"
STOCKS = PAIRS.replace("ORDERED", "STOCKS")
PRODUCTS = (
    "MATCH (p:Product) WHERE p.product_id STARTS WITH $mark AND p.event_time IS NOT NULL "
    "WITH p ORDER BY p.product_id"
)
DEALERS = f"MATCH (d:Dealer)-[i:IN]->() WHERE {OWN} AND d.event_time IS NOT NULL WITH d, i ORDER BY d.dealer_id"
LINE, PAIR = "o.dealer_id, id", "d.dealer_id, p.product_id"
DAMAGE = [
    ("missing-relation", "HOLDS", LINES, 3, "DELETE l", LINE),
    ("relation", "HOLDS", LINES, 8, "SET l.quantity = l.quantity + 1", LINE),
    ("extra-relation", "HOLDS", LINES, 12, "CREATE (o)-[m:HOLDS]->(p) SET m = properties(l)", LINE),
    ("relation", "ORDERED", PAIRS, 1, "SET r.last_ms = 1", PAIR),
    ("missing-relation", "ORDERED", PAIRS, 2, "DELETE r", PAIR),
    ("relation", "STOCKS", STOCKS, 0, "SET r.on_hand = r.on_hand + 1", PAIR),
    ("extra-relation", "STOCKS", "MATCH (d:Dealer), (p:Product {product_id: $mark + 'q'}) WITH d, p", 0,
     "CREATE (d)-[:STOCKS {on_hand: 1, event_time: 1}]->(p)", PAIR),
    ("node", "Product", PRODUCTS, 0, "SET p.name = 'x'", "p.product_id"),
    ("missing-node", "Dealer", DEALERS, 0, "REMOVE d.event_time DELETE i", "d.dealer_id"),
    ("extra-node", "Product", "MATCH (p:Product {product_id: $mark + 'q'}) WITH p", 0,
     "SET p.event_time = 1", "p.product_id"),
]  # fmt: skip
COUNTS = """
MATCH ()-[l:HOLDS]->() WITH count(l) AS lines
MATCH ()-[r:ORDERED|STOCKS]->() RETURN lines, count(r) AS n"""

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


@pytest.fixture
def settings(graph, alone):
    """The graph of all tests beside topics of its own: it is folded from the first record on."""
    found = alone.model_copy(deep=True)
    found.graph = graph.graph
    return found


@pytest.fixture
def driver(settings):
    """A driver of the database, emptied: what other tests put there is in no topic."""
    with connect(settings.graph) as found:
        empty(found)
        yield found
        empty(found)


def empty(driver):
    with driver.session() as session:  # in one transaction it may not fit into memory
        session.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 500 ROWS").consume()


def fold(settings, driver, registry):
    """Fold all that the topics hold, as the process does."""
    view = GraphView(GraphStore(driver, "neo4j", GRAPH_VIEW), registry.schema)
    stop = threading.Event()
    group = f"g-{uuid.uuid4().hex}"
    runner = threading.Thread(target=ViewRunner(settings.kafka, view, stop=stop, group=group).run)
    runner.start()
    broker = Broker(settings.kafka)
    ends = {(topic, part): end for topic in TOPICS for part, end in broker.ends(topic).items() if end}

    def held():
        found = driver.execute_query(cypher.WHERE, name=GRAPH_VIEW).records
        return position_in(found[0]["held"]) if found else {}

    deadline = time.monotonic() + 240
    while not all((now := held()).get(place, 0) >= end for place, end in ends.items()):
        assert time.monotonic() < deadline, (now, ends)
        time.sleep(0.2)
    stop.set()
    runner.join(60)
    assert not runner.is_alive()


def test_damage_is_named_and_a_right_graph_is_clean(driver, settings):
    ensure_topics(settings.kafka, TOPICS)
    registry = Registry(settings.registry)
    ids = registry.register_all(list(TOPICS))
    encode = {each: Encoder(each, ids[f"{each}-value"]).encode for each in TOPICS}
    network = Network(41)
    network.some(400)
    who = network.dealers[0]
    network.add("dealers", who, dealer(who, region="north", event_time=1_700_000_000_100))
    sender = producer(settings.kafka)
    for number, (topic, key, record, *_) in enumerate(told(network.log)):
        value = None if record is None else encode[topic](record)
        head = headers(f"{network.mark}-{number}", topic, "test", 1_700_000_000_000, key)
        sender.produce(topic, value, key=key.encode(), headers=head)
    assert sender.flush(60) == 0
    fold(settings, driver, registry)
    broker = Broker(settings.kafka)

    def verify():
        return verify_graph(driver, "neo4j", broker, registry, lambda: None)

    clean = verify()
    assert clean.findings == []
    assert clean.notes == []
    (counted,) = driver.execute_query(COUNTS).records
    assert (clean.lines, clean.relations) == (counted["lines"], counted["n"])

    def damage(text):
        (row,) = driver.execute_query(text, mark=network.mark).records
        return tuple(row.values())

    damage("CREATE (p:Product {product_id: $mark + 'q'}) RETURN 1")
    done = {
        (kind, view, damage(f"{of} SKIP {nth} LIMIT 1 {change} RETURN {told_of}"))
        for kind, view, of, nth, change, told_of in DAMAGE
    }
    damage("MATCH (v:View {name: 'graph-view'}) SET v.`orders:0` = 9999999 RETURN 1")
    found = {(each.kind, each.view, each.entity) for each in verify().findings}
    assert done <= found
    # A line that is gone, changed or there twice also moves the sum that its pair should have.
    others = found - done
    assert ("position", "orders", ()) in others
    assert {(kind, view) for kind, view, _ in others} <= {("position", "orders"), ("relation", "ORDERED")}
    _vectors_of_an_earlier_graph_are_named(driver, settings, registry, network.mark)


def _vectors_of_an_earlier_graph_are_named(driver, settings, registry, mark):
    """A product that only an earlier graph had keeps its vector; what the new graph embeds is right."""
    ensure_topics(settings.kafka, ["embeddings"])
    schema_id = registry.register_all(["embeddings"])["embeddings-value"]
    chosen = settings.graph.model_copy(update={"embedding_dimension": 16})
    writer, broker = producer(settings.kafka), Broker(settings.kafka)

    def findings():
        check = verify_graph_vectors(driver, "neo4j", broker, registry, lambda: None)
        own = [each for each in check.findings if each.entity[0].partition("/")[2].startswith(mark)]
        return own, check

    first = GraphEmbedder(driver, chosen, writer, schema_id).run()
    gone = SubjectVector("product", f"{mark}-gone", np.ones(16, "<f4").tobytes(), first.encoder)
    VectorPublisher(writer, schema_id, "graph", "test").publish([gone])
    own, check = findings()
    assert check.vectors > first.vectors > 0
    assert [(each.kind, each.entity[0], each.found) for each in own] == [
        ("leftover-vector", f"product/{mark}-gone", first.encoder)
    ]
    embedded = driver.execute_query(  # other tests' nodes may be in the graph too
        "MATCH (n) WHERE n.published IS NOT NULL AND coalesce(n.product_id, n.dealer_id) STARTS WITH $mark "
        "RETURN count(n) AS count",
        mark=mark,
    ).records[0]["count"]
    assert embedded > 0
    empty(driver)
    own, check = findings()
    assert len(own) == embedded + 1
    assert check.leftover[first.encoder] >= len(own)
    fold(settings, driver, registry)
    second = GraphEmbedder(driver, chosen, writer, schema_id).run()
    assert second.encoder != first.encoder
    own, check = findings()
    assert {each.kind for each in own} == {"leftover-vector"}
    assert f"product/{mark}-gone" in {each.entity[0] for each in own}
    assert {each.found for each in own} == {first.encoder}
    driver.execute_query(
        "MATCH (p:Product) WHERE p.product_id STARTS WITH $mark AND p.published IS NOT NULL "
        "WITH p ORDER BY p.product_id LIMIT 1 SET p.published = $other",
        mark=mark, other=gone.vector,
    )  # fmt: skip
    assert "vector" in {each.kind for each in findings()[0]}
