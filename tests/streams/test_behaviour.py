"""Vectors of what dealers order: as far apart as their orders are, published on change, once."""

import time
import uuid

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from connectors.kafka import ensure_topics, partition_counts, producer
from connectors.registry import Registry
from models.recommend.decay import Decay
from models.recommend.records import KNOWN
from models.recommend.settings import RecommendSettings
from schemas.codec import Decoder
from streams.publishing import VectorPublisher, chunk_of
from streams.recommend.behaviour import BehaviourEmbedder, behaviour_vector
from streams.recommend.store import RecommendStore, Written

DAY = 86_400
DECAY = Decay(30.0)


def known(products: dict[int, int]) -> np.ndarray:
    return np.array([(product, at, 0) for product, at in sorted(products.items())], KNOWN)


def exact(one: dict[int, int], other: dict[int, int]) -> float:
    """The cosine of two decayed sets, computed apart: product by product."""

    def weights(each):
        newest = max(each.values())
        return {product: 2.0 ** (-(newest - at) / (30 * DAY)) for product, at in each.items()}

    first, second = weights(one), weights(other)
    together = sum(first[each] * second[each] for each in first.keys() & second.keys())
    lengths = [sum(each**2 for each in some.values()) ** 0.5 for some in (first, second)]
    return together / (lengths[0] * lengths[1])


def test_the_cosine_is_that_of_the_decayed_sets():
    rng = np.random.default_rng(4)
    names = rng.integers(1, 2**63, 3_000, dtype=np.uint64)
    errors = []
    for share in np.linspace(0, 1, 21):
        at = rng.integers(1, 400 * DAY, 3_000)
        one = {int(names[each]): int(at[each]) for each in range(800)}
        first = int(800 * (1 - share))
        other = {int(names[each]): int(at[each]) for each in range(first, first + 800)}
        vectors = [behaviour_vector(known(each), DECAY, 1_024) for each in (one, other)]
        errors.append(float(vectors[0] @ vectors[1]) - exact(one, other))
    assert np.abs(errors).max() < 4 / np.sqrt(1_024)
    assert abs(np.mean(errors)) < 2 / np.sqrt(1_024)


def test_what_was_ordered_lately_counts_more_and_silence_changes_nothing():
    old, new = {1: 10, 2: 10}, {3: 10 + 300 * DAY}
    vector = behaviour_vector(known(old | new), DECAY, 256)
    assert vector @ behaviour_vector(known(new), DECAY, 256) > 0.99
    later = {product: at + 77 * DAY for product, at in (old | new).items()}
    assert np.array_equal(behaviour_vector(known(later), DECAY, 256), vector)
    assert behaviour_vector(known({}), DECAY, 256) is None
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


class World:
    def __init__(self, settings):
        self.settings, self.project = settings, f"t{uuid.uuid4().hex[:10]}"
        self.redis = Redis.from_url(settings.redis.address)
        self.registry = Registry(settings.registry)
        self.schema_id = self.registry.register_all(["embeddings"])["embeddings-value"]
        ensure_topics(settings.kafka, ["embeddings"])
        self.store = RecommendStore(self.redis, self.project)
        self.store.positions()

    def order(self, dealer: str, products: dict[int, int]) -> None:
        packed = known(products).tobytes()
        orders = np.array(sorted(products.items()), "<u8").tobytes()  # here only its change matters
        self.store.commit(Written(known=[(dealer, packed, True)], orders={dealer: orders}), {})

    def run(self, **more):
        publisher = VectorPublisher(producer(self.settings.kafka), self.schema_id, "behaviour", "test")
        store = RecommendStore(self.redis, self.project)
        return BehaviourEmbedder(store, RecommendSettings(half_life_days=30, **more), publisher).run()

    def topic(self, dealers: list[str]) -> dict[str, list[dict]]:
        """Every record of our dealers, by dealer."""
        decode = Decoder.of_topic("embeddings", self.registry.schema).decode
        own = {chunk_of("behaviour", "dealer", each).encode(): each for each in dealers}
        source = Consumer({**self.settings.kafka.client_config(), "group.id": uuid.uuid4().hex})
        found: dict[str, list[dict]] = {each: [] for each in dealers}
        try:
            for number in range(partition_counts(self.settings.kafka)["embeddings"]):
                part = TopicPartition("embeddings", number, 0)
                _, end = source.get_watermark_offsets(part, timeout=30)
                source.assign([part])
                at, until = 0, time.monotonic() + 60
                while at < end and time.monotonic() < until:
                    for message in source.consume(1_000, 1.0):
                        at = message.offset() + 1
                        if message.key() in own:
                            found[own[message.key()]].append(decode(message.value()))
        finally:
            source.close()
        return found


@pytest.mark.services
def test_a_vector_is_published_when_its_orders_moved_it(stack):
    world = World(stack)
    dealers = [f"{world.project}-{each}" for each in "abc"]
    for at, dealer in enumerate(dealers):
        world.order(dealer, {100 * at + each: 1_000 * DAY for each in range(1, 30)})
    first = world.run()
    assert (first.published, first.unchanged) == (3, 0)
    again = world.run()  # another process, the same store
    assert (again.published, again.unchanged) == (0, 3)
    world.order(dealers[0], dict.fromkeys(range(1, 31), 1000 * DAY))
    world.order(dealers[1], {100 + each: 1_000 * DAY for each in range(1, 30)} | {7: 10})  # long ago: no move
    assert (world.run().published, world.run().unchanged) == (1, 3)
    found = world.topic(dealers)
    assert [len(found[each]) for each in dealers] == [2, 1, 1]
    record = found[dealers[0]][-1]
    wanted = behaviour_vector(known(dict.fromkeys(range(1, 31), 1000 * DAY)), DECAY, 256)
    assert np.array_equal(np.frombuffer(record["vector"], "<f4"), wanted)
    assert (record["kind"], record["subject_type"], record["dimension"]) == ("behaviour", "dealer", 256)
    other = world.run(behaviour_dimension=64)  # another encoder makes every vector new
    assert (other.published, {each[-1]["dimension"] for each in world.topic(dealers).values()}) == (3, {64})
