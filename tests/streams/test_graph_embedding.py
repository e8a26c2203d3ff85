"""Graph embeddings: repeatable, published where they changed, taken back where they are gone."""

import uuid

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from graph_world import Network, dealer, fetch, line, product

from connectors.kafka import ensure_topics, partition_counts, producer
from connectors.neo4j.driver import connect
from connectors.registry import Registry
from schemas.codec import Decoder
from streams.graph.algorithms import ALGORITHMS
from streams.graph.embedding import GraphEmbedder, GraphMemoryError, chunk_of
from streams.graph.store import GraphStore
from streams.views.graph_view import GraphView

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


class World:
    """A graph of two groups of products, each bought by its own dealer, and the topic of embeddings."""

    def __init__(self, settings, driver):
        self.settings, self.driver, self.network = settings, driver, Network(31)
        registry = Registry(settings.registry)
        self.schema_id = registry.register_all(["embeddings"])["embeddings-value"]
        self.decode = Decoder.of_topic("embeddings", registry.schema).decode
        ensure_topics(settings.kafka, ["embeddings"])
        self.view = GraphView(GraphStore(driver, "neo4j", f"view-{uuid.uuid4().hex[:8]}"), fetch)
        self.view.positions()
        self.orders = 0

    def fill(self):
        network = self.network
        network.products = [f"{network.mark}-p{number}" for number in range(12)]
        events = [
            network.add("products", each, product(each, category=network.mark)) for each in network.products
        ]
        events += [network.add("dealers", each, dealer(each)) for each in network.dealers[:2]]
        for number in range(60):
            group = network.products[:6] if number % 2 else network.products[6:]
            events += self.order(network.dealers[number % 2], network.pick.sample(group, 3))
        self.view.apply(events)

    def order(self, who, products):
        self.orders += 1
        return [
            self.network.add("orders", who, line(who, f"o{self.orders}", each, f"{self.orders}-{at}"))
            for at, each in enumerate(products)
        ]

    def run(self, **changed):
        graph = self.settings.graph.model_copy(update={"embedding_dimension": 32, **changed})
        return GraphEmbedder(self.driver, graph, producer(self.settings.kafka), self.schema_id).run()

    def own(self):
        return {
            chunk_of(kind, each): each
            for kind, ids in (("product", self.network.products), ("dealer", self.network.dealers))
            for each in ids
        }

    def topic(self):
        """The newest record of each of our chunks, as a compacted topic has it; None where it was deleted."""
        counts = partition_counts(self.settings.kafka)
        source = Consumer({**self.settings.kafka.client_config(), "group.id": uuid.uuid4().hex})
        own, found = self.own(), {}
        try:
            for number in range(counts["embeddings"]):
                _, end = source.get_watermark_offsets(TopicPartition("embeddings", number), timeout=30)
                source.assign([TopicPartition("embeddings", number, 0)])
                at = 0
                while at < end:
                    for message in source.consume(1_000, 0.5):
                        assert message.error() is None
                        at = message.offset() + 1
                        if (key := (message.key() or b"").decode()) in own:
                            found[own[key]] = None if message.value() is None else self.decode(message.value())
                    at = max(at, source.position([TopicPartition("embeddings", number)])[0].offset)
        finally:
            source.close()
        return found


@pytest.fixture(scope="module")
def world(graph):
    with connect(graph.graph) as driver:
        made = World(graph, driver)
        made.fill()
        yield made


def vectors(records):
    return {
        each: np.frombuffer(record["vector"], "<f4") for each, record in records.items() if record is not None
    }


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_what_is_offered_is_embedded_and_nothing_twice(world):
    first = world.run()
    found = world.topic()
    assert found.keys() == {*world.network.products, *world.network.dealers[:2]}
    for each, record in found.items():
        assert record["kind"] == "graph"
        assert record["encoder"] == first.encoder
        assert record["dimension"] == 32 == len(record["vector"]) // 4
        assert record["subject_id"] == each
        assert record["text"] is None
    again = world.run()
    assert (again.published, again.deleted) == (0, 0)
    assert again.unchanged == again.vectors == first.vectors
    assert world.topic() == found


def test_products_that_are_bought_together_lie_near_each_other(world):
    found = vectors(world.topic())
    one, other = world.network.products[:6], world.network.products[6:]
    inside = [cosine(found[a], found[b]) for group in (one, other) for a in group for b in group if a < b]
    across = [cosine(found[a], found[b]) for a in one for b in other]
    assert np.mean(inside) > np.mean(across) + 0.2


def test_only_what_moved_is_published_again(world):
    before = world.topic()
    who, some = world.network.dealers[0], world.network.products[6:]
    world.view.apply([event for _ in range(20) for event in world.order(who, some[:2])])
    done = world.run(embedding_tolerance=0.02)
    after = world.topic()
    changed = {each for each in after if after[each]["vector"] != before[each]["vector"]}
    assert set(some[:2]) <= changed
    assert not changed & set(world.network.products[:6])  # the other group has nothing to do with it
    assert len(changed) <= done.published
    for each in changed:
        assert 1 - cosine(*(np.frombuffer(state[each]["vector"], "<f4") for state in (before, after))) > 0.02


def test_a_product_that_is_gone_or_not_offered_is_taken_back(world):
    network = world.network
    gone, ended = network.products[:2]
    world.view.apply(
        [
            network.add("products", gone, None),
            network.add("products", ended, product(ended, category=network.mark, deleted=True)),
        ]
    )
    assert world.run().deleted >= 2
    found = world.topic()
    assert found[gone] is None
    assert found[ended] is None
    assert all(found[each] is not None for each in network.products[2:])
    assert world.run().deleted == 0


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_each_algorithm_gives_the_same_vectors_again(world, name):
    first = world.run(embedding=name)
    assert first.encoder.startswith(f"graph-{name}-32@")
    one = vectors(world.topic())
    assert len(one) == 12
    again = world.run(embedding=name)
    assert again.encoder == first.encoder
    assert again.published == 0
    other = world.run(embedding=name, embedding_seed=7)  # another encoder: all vectors are new
    assert other.published == other.vectors == first.vectors
    two = vectors(world.topic())
    assert all(not np.array_equal(one[each], two[each]) for each in one)


def test_a_graph_that_does_not_fit_says_which_setting_to_raise(world):
    with pytest.raises(GraphMemoryError, match="memory") as refused:
        world.run(embedding_dimension=4_000_000)
    assert "graph.heap_mb" in refused.value.told
    left = world.driver.execute_query("CALL gds.graph.list() YIELD graphName RETURN graphName").records
    assert left == []
