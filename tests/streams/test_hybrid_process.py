"""The process `hybrid-view` on a real Kafka: killed while parts change, it loses and repeats nothing."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis
from vector_world import product as product_record

from connectors.kafka import ensure_topics, partition_counts, producer
from connectors.registry import Registry
from dealeriq.kinds import weights_of
from dealeriq.search.folder import folder_of, images_of, kinds_of, open_version
from dealeriq.search.rebuild import rebuild
from models.embedding.topics import FIRST, TOPICS, Homes
from models.fusion import HYBRID
from models.search.request import SearchRequest
from models.search.searcher import Searcher
from models.search.vocabulary import Vocabulary
from models.text import text_encoder
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from schemas.ids import event_id
from streams.hybrid.publisher import key_of
from streams.verify.broker import Broker
from streams.verify.hybrid import HybridSource, verify_hybrid

pytestmark = pytest.mark.services
SIZES = {"text": 384, "graph": 128}
PATIENCE_S = 120.0


class World:
    """Parts of products of our own in the topic, the process over them, and what it publishes."""

    def __init__(self, settings, folder):
        self.settings = settings.model_copy(deep=True)
        self.settings.hybrid.enabled = True
        self.settings.hybrid.kinds = ["text", "graph"]
        self.settings.hybrid.folder = folder / "hybrid"
        self.settings.search.folder = folder / "index"
        self.settings.search.kinds = ["hybrid"]
        self.log = folder / "hybrid-view.log"
        self.run = uuid.uuid4().hex[:8]
        self.settings.features.project = f"t{self.run}"
        self.registry = Registry(self.settings.registry)
        ids = self.registry.register_all([*TOPICS, "products"])
        self.encode = {each: Encoder(each, ids[f"{each}-value"]).encode for each in (*TOPICS, "products")}
        ensure_topics(self.settings.kafka, [*TOPICS, "products", "documents", "inventory"])
        self.writer = producer(self.settings.kafka)
        self.parts: dict[tuple[str, str], np.ndarray] = {}
        self.home = Homes(Redis.from_url(self.settings.redis.address)).in_use()
        self.process = None

    def send(self, topic, key, record):
        sent = headers(uuid.uuid4().hex, topic, "test", time.time_ns() // 1_000_000, key)
        value = None if record is None else self.encode[topic](record)
        self.writer.produce(topic, value, key=key.encode(), headers=sent)

    def part(self, product, kind, seed):
        """Give a product a part, or take it (seed None)."""
        key, topic = event_id("part", kind, product), self.home if kind == "text" else FIRST
        if seed is None:
            self.parts.pop((product, kind), None)
            self.send(topic, key, None)
            return
        vector = np.random.default_rng(seed).standard_normal(SIZES[kind]).astype("<f4")
        vector /= np.linalg.norm(vector)
        self.parts[product, kind] = vector
        name = "graph-fastrp-128" if kind == "graph" else "text"
        self.send(topic, key, {
            "chunk_id": key, "subject_type": "product", "subject_id": product, "chunk": 0, "kind": kind,
            "encoder": f"{name}@{self.run}", "dimension": SIZES[kind], "vector": vector.tobytes(),
            "fingerprint": event_id(kind, seed), "text": None, "dealer_id": None,
            "event_time": 1_500_000_000_000 + seed,
        })  # fmt: skip

    def start(self):
        environment = os.environ | self.settings.environment() | {"DEALERIQ_METRICS_PORT": "0"}
        command = [sys.executable, "-m", "dealeriq.processes", "hybrid-view"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def kill(self, number=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
        self.process = None

    def said(self) -> dict[str, list[dict | None]]:
        """Every record of our products' fused vectors that readers of committed records see, in order."""
        decode = Decoder.of_topic(FIRST, self.registry.schema).decode
        own = {key_of(product).encode(): product for product in self.products}
        found: dict[str, list] = {product: [] for product in self.products}
        source = Consumer(
            {
                **self.settings.kafka.client_config(), "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed", "enable.partition.eof": True,
            }
        )  # fmt: skip
        try:
            left = set(range(partition_counts(self.settings.kafka)[FIRST]))
            source.assign([TopicPartition(FIRST, number, 0) for number in left])
            until = time.monotonic() + PATIENCE_S
            while left and time.monotonic() < until:
                for message in source.consume(1_000, 0.2):
                    if message.error() is not None:
                        left.discard(message.partition())
                    elif message.key() in own:
                        value = message.value()
                        found[own[message.key()]].append(None if value is None else decode(value))
            assert not left
        finally:
            source.close()
        return found

    @property
    def products(self):
        return [f"{self.run}-{number}" for number in range(150)]

    def wanted(self) -> dict[str, np.ndarray]:
        weights = weights_of(self.settings)
        found = {}
        for product in self.products:
            if (product, "text") in self.parts:
                blocks = [
                    weights[kind] ** 0.5 * self.parts.get((product, kind), np.zeros(size))
                    for kind, size in SIZES.items()
                ]
                beside = np.concatenate(blocks)
                found[product] = beside / np.linalg.norm(beside)
        return found

    def settled(self) -> dict[str, list]:
        """Wait until what is said is what is wanted, and return all of it."""
        until = time.monotonic() + PATIENCE_S
        while True:
            said, wanted = self.said(), self.wanted()
            there = {
                product: np.frombuffer(records[-1]["vector"], "<f4")
                for product, records in said.items()
                if records and records[-1] is not None
            }
            if there.keys() == wanted.keys() and all(
                np.allclose(there[each], wanted[each], atol=1e-5) for each in wanted
            ):
                return said
            told = f"{len(there)} vectors, wanted are {len(wanted)}; {self.log.read_text()[-3_000:]}"
            assert self.process.poll() is None, told
            assert time.monotonic() < until, told
            time.sleep(0.3)


@pytest.fixture
def world(alone, tmp_path):
    made = World(alone, tmp_path)
    yield made
    made.kill()


def source_of(world):
    return HybridSource(
        weights_of(world.settings),
        f"{world.settings.features.project}-hybrid-view",
        Homes(Redis.from_url(world.settings.redis.address)).in_use,
    )


def check(world):
    source = source_of(world)
    until = time.monotonic() + PATIENCE_S
    while True:  # the process says each second how far it is
        found = verify_hybrid(
            source, Broker(world.settings.kafka), world.registry, sampled=False, pause=lambda: None
        )
        if found.products and not found.moving and not found.notes:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.5)


def test_killed_while_parts_change_it_loses_nothing_and_says_nothing_twice(world, monkeypatch):
    rng = random.Random(5)
    for product in world.products:
        world.part(product, "text", rng.randrange(10**6))
        if rng.random() < 0.8:
            world.part(product, "graph", rng.randrange(10**6))
    world.writer.flush(30)
    world.start()
    world.settled()
    for _ in range(3):
        for _ in range(500):
            product, kind = rng.choice(world.products), rng.choice(["text", "graph"])
            world.part(product, kind, None if rng.random() < 0.1 else rng.randrange(10**6))
            if rng.random() < 0.02:
                world.writer.flush(30)
        world.writer.flush(30)
        time.sleep(rng.random() * 0.4)  # anywhere in the work on them
        world.kill()
        world.start()
    said = world.settled()
    again = Counter()
    for product, records in said.items():
        marks = [None if each is None else each["fingerprint"] for each in records]
        again[product] = sum(one == other for one, other in itertools.pairwise(marks))
        assert all(each is None or (each["kind"], each["dimension"]) == (HYBRID, 512) for each in records)
    assert sum(again.values()) == 0

    found = check(world)
    assert found.findings == []
    assert found.products >= len(world.wanted())
    monkeypatch.setattr("streams.verify.hybrid._SAMPLED", 500)
    some = verify_hybrid(
        source_of(world), Broker(world.settings.kafka), world.registry, sampled=True, pause=lambda: None
    )
    assert some.findings == []
    assert 0 < some.products < found.products
    _found_by_a_search(world)
    _named_by_verify(world)


def _found_by_a_search(world):
    """Fused vectors are in the index under their kind, and a product's like is what is near by all of them."""
    for product in world.products:
        world.send("products", product, product_record(product))
    world.writer.flush(30)
    rebuild(world.settings, lambda line: None)
    settings, encoder = world.settings, text_encoder(world.settings.text)
    folder = folder_of(settings)
    index = open_version(folder.current(), settings, kinds_of(settings, encoder, images_of(settings)))
    try:
        wanted = world.wanted()
        asked = next(iter(wanted))
        answer = Searcher(index, encoder, Vocabulary()).search(
            SearchRequest(like=f"product/{asked}", kinds=["hybrid"], limit=5)
        )
        near = sorted(wanted.keys() - {asked}, key=lambda each: -float(wanted[asked] @ wanted[each]))
        assert [each.id for each in answer.hits] == near[:5]
        assert set(answer.hits[0].why) == {"like-hybrid"}
    finally:
        index.close()


def _named_by_verify(world):
    """A vector that is not of its parts, one that is missing, and one of no text are named."""
    wanted = list(world.wanted())
    without = next(each for each in world.products if each not in wanted)
    record = next(each for each in world.said()[wanted[0]] if each is not None)
    world.kill(signal.SIGTERM)
    for product in (wanted[0], without):
        wrong = np.random.default_rng(1).standard_normal(512).astype("<f4")
        key = key_of(product)
        world.send(FIRST, key, record | {"chunk_id": key, "subject_id": product, "vector": wrong.tobytes()})
    world.send(FIRST, key_of(wanted[1]), None)
    world.writer.flush(30)
    said_all = source_of(world)
    broker = Broker(world.settings.kafka)
    moving = verify_hybrid(said_all, broker, world.registry, sampled=False, pause=lambda: None)
    assert moving.findings == []
    assert moving.moving == 3
    done = Consumer({**world.settings.kafka.client_config(), "group.id": said_all.group})
    ends = [TopicPartition(FIRST, number, end) for number, end in broker.ends(FIRST).items()]
    done.commit(offsets=ends, asynchronous=False)  # as if it had passed them by
    done.close()
    found = verify_hybrid(said_all, broker, world.registry, sampled=False, pause=lambda: None)
    assert {(each.kind, each.entity[0]) for each in found.findings} == {
        ("vector", f"product/{wanted[0]}"),
        ("extra-vector", f"product/{without}"),
        ("missing-vector", f"product/{wanted[1]}"),
    }
