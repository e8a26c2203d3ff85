"""Embedding and search as processes, on real Kafka, registry and Redis: what changes is found."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from connectors.kafka import ensure_topics, producer
from connectors.registry import Registry
from connectors.vectors import AnyOf
from connectors.vectors.folder import IndexFolder
from connectors.whole import WholeTopic
from dealeriq.client import ConnectionFailedError, DealerIQ, RequestError, UnavailableError
from dealeriq.search.asking import asker
from dealeriq.search.folder import kinds_of, open_version
from dealeriq.settings import load
from models.text import packaged_encoder
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from streams.graph.embedding import chunk_of
from streams.verify.broker import Broker
from streams.verify.vectors import verify_vectors
from tests.search_backlog import skip_backlog
from tests.streams.vector_world import document, product

pytestmark = pytest.mark.services

NOW_MS = 1_500_000_000_000
TOPICS = ("embeddings", "products", "documents", "inventory")
PARAGRAPH = (
    "Warranty claims for {part} are decided by the regional office. Send the serial number, the mileage, and "
    "a photograph of the damage. The office answers within five working days, and the dealer is credited with "
    "the next statement. Parts that were opened, repaired elsewhere or kept too long are not credited."
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class World:
    """The processes, and what one run of the test produces: ids with a mark of its own."""

    def __init__(self, stack, folder):
        self.stack, self.folder, self.mark = stack, folder, f"s{uuid.uuid4().hex[:8]}"
        ensure_topics(stack.kafka)
        self.registry = Registry(stack.registry)
        self.ids = self.registry.register_all(TOPICS)
        self.producer = producer(stack.kafka)
        self.search_port, self.http_port = free_port(), free_port()
        self.running = {}
        known = load(self.variables())
        skip_backlog(stack.kafka, known, self.folder / "index", TOPICS, ("embed-agent",))

    def variables(self):
        return os.environ | self.stack.environment() | {
            "DEALERIQ_DATA_DIR": str(self.folder),
            "DEALERIQ_SEARCH__ENABLED": "true",
            "DEALERIQ_SEARCH__KINDS": '["text", "graph"]',
            "DEALERIQ_SEARCH__FEEDBACK_HOLDOUT": "0",
            "DEALERIQ_SEARCH__PORT": str(self.search_port),
            "DEALERIQ_HTTP__PORT": str(self.http_port),
            "DEALERIQ_FEATURES__PROJECT": self.mark,
            "DEALERIQ_METRICS_PORT": "0",
        }  # fmt: skip

    def run(self, *command):
        """The JSON that a command of ours prints."""
        ran = subprocess.run(
            [sys.executable, "-m", "dealeriq", *command], env=self.variables(), capture_output=True, timeout=240
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def start(self, *names):
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [sys.executable, "-m", "dealeriq.processes", name]
                self.running[name] = subprocess.Popen(command, env=self.variables(), stdout=log, stderr=log)

    def stop(self, name, how=signal.SIGTERM, timeout_s=60.0):
        process = self.running.pop(name)
        process.send_signal(how)
        return process.wait(timeout_s)

    def product(self, number, **more):
        return product(f"{self.mark}-{number}", **({"name": "Thing"} | more))

    def document(self, number, text, **more):
        return document(f"{self.mark}-{number}", **({"title": "Warranty manual", "text": text} | more))

    def send(self, name, key, value):
        if isinstance(value, dict):
            value = Encoder(name, self.ids[f"{name}-value"]).encode(value)
        self.producer.produce(name, value, key=key.encode(), headers=headers("e", name, "test", NOW_MS, key))
        assert self.producer.flush(20) == 0

    def send_all(self, name, *records):
        field = {"products": "product_id", "documents": "document_id"}[name]
        for record in records:
            self.send(name, record[field], record)

    def search(self, client, text, **more):
        """The ids of this run that are found, best first."""
        answer = client.search(text, **more)
        return [hit.id.removeprefix(f"{self.mark}-") for hit in answer.hits if hit.id.startswith(self.mark)]

    def until(self, ask, timeout_s=120.0):
        end, told = time.monotonic() + timeout_s, None
        while time.monotonic() < end:
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended: {self.log()}"
            try:
                if told := ask():
                    return told
            except (UnavailableError, ConnectionFailedError) as error:
                told = error
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout_s} s: {told}; {self.log()}")

    def messages(self, name):
        """Every message of this run in a topic, by key or by owner."""
        reading = WholeTopic(self.stack.kafka, name, f"test-{uuid.uuid4().hex}")
        decoder, found = Decoder.of_topic("embeddings", self.registry.schema), []
        mine = set()
        try:
            for each in reading.records():
                value, key = each.value(), each.key() or b""
                if name == "embeddings" and value is not None:
                    value = decoder.decode(value)
                    if value["subject_id"].startswith(self.mark):
                        mine.add(key)
                if key in mine or self.mark.encode() in key:
                    found.append((key, value))
            return found
        finally:
            reading.close()

    def log(self):
        return "\n".join(each.read_text()[-2_000:] for each in self.folder.glob("*.log"))


@pytest.fixture
def world(stack, tmp_path):
    world = World(stack, tmp_path)
    yield world
    for name in list(world.running):
        world.stop(name, signal.SIGKILL)


def test_what_changes_is_found_and_nothing_is_encoded_twice(world):
    world.start("embed-agent", "search", "http")
    texts = [PARAGRAPH.format(part=part) for part in ("starters", "gearboxes", "windscreens")]
    saw = world.product(1, name="Cordless chainsaw", brand="Oak", price=99.0)
    banana = world.product(2, name="Bananas", category="PRODUCE", price=0.5)
    manual = world.document(11, "\n\n".join(texts))
    secret = world.document(12, "Rebates are forty percent for everybody who asks politely.", dealer_id="d1")
    world.send_all("products", saw, banana)
    world.send_all("documents", manual, secret)
    with DealerIQ(f"http://127.0.0.1:{world.http_port}", timeout=20) as client:
        world.until(lambda: world.search(client, "cordless chainsaw")[:1] == ["1"])
        documents = {"type": "document"}
        world.until(lambda: world.search(client, "windscreens warranty", filters=documents)[:1] == ["11"])
        chunks = Counter(key for key, _ in world.messages("embeddings"))
        assert len(chunks) == sum(chunks.values()) == 2 + 3 + 1

        # A price is a field: found by it at once, and nothing is encoded.
        world.send_all("products", saw | {"price": 79.0, "event_time": NOW_MS + 1})
        world.until(lambda: world.search(client, "chainsaw", filters={"price": {"gte": 70, "lte": 80}}))
        # An older event changes nothing; one dealer's document is nobody else's.
        world.send_all("products", saw | {"price": 75.0})
        assert world.search(client, "rebates percent", filters=documents)[:1] != ["12"]
        world.until(lambda: world.search(client, "rebates percent", dealer_id="d1")[:1] == ["12"])
        # Stock of a dealer.
        level = {"event_id": world.mark, "dealer_id": "d1", "product_id": saw["product_id"], "on_hand": 3}
        world.send("inventory", "d1", level | {"event_time": NOW_MS})
        world.until(lambda: world.search(client, "chainsaw", filters={"stocked_by": "d1"}) == ["1"])
        assert sum(Counter(key for key, _ in world.messages("embeddings")).values()) == 6

        # One paragraph is edited: its chunk goes, another comes, and the answer cites the new place.
        texts[1] = texts[1].replace("gearboxes", "turbochargers")
        text = "\n\n".join(["Read this first.", *texts])
        world.send_all("documents", manual | {"text": text, "event_time": NOW_MS + 1})
        hit = world.until(
            lambda: next(
                (
                    each
                    for each in client.search("turbochargers").hits
                    if each.id == manual["document_id"] and each.highlights
                ),
                None,
            )
        )
        assert "turbochargers" in text[hit.start : hit.end]
        assert [hit.text[a:b] for a, b in hit.highlights] == ["turbochargers"]
        assert hit.why.keys() == {"meaning", "words"}
        after = world.messages("embeddings")
        assert len(after) == 6 + 3  # its own chunk, the new first line, and a tombstone
        assert sum(value is None for _, value in after) == 1

        # A misspelt word is mended, and said; what is like a thing is not the thing itself.
        answer = client.search("cordles chiansaw")
        assert answer.corrected == {"cordles": "cordless", "chiansaw": "chainsaw"}
        assert answer.hits[0].id == saw["product_id"]
        alike = client.search(like=f"product/{saw['product_id']}").hits
        assert alike
        assert saw["product_id"] not in [each.id for each in alike]
        prove_that_feedback_moves_a_hit(world, client)
        with pytest.raises(RequestError, match="no field is called 'prise'") as caught:
            client.search("saw", filters={"prise": 1})
        assert "did you mean price" in caught.value.remedy
        url = f"http://127.0.0.1:{world.http_port}/v1/search?q=chainsaw&price.lte=80&category=TOOLS"
        with urllib.request.urlopen(url, timeout=20) as found:
            assert json.load(found)["hits"][0]["id"] == saw["product_id"]

        # Deleted either way, and what is no text.
        world.send("products", banana["product_id"], None)
        world.send_all("documents", secret | {"deleted": True, "event_time": NOW_MS + 1})
        world.send_all("documents", world.document(13, "\x00\x01\x02" * 90), world.document(14, " "))
        world.send("products", f"{world.mark}-9", b"no record at all")
        world.until(lambda: len(world.messages("documents.dlq")) == 2)
        world.until(lambda: len(world.messages("products.dlq")) == 1)
        world.until(lambda: "2" not in world.search(client, "bananas"))
        world.until(lambda: "12" not in world.search(client, "rebates percent", dealer_id="d1"))

        # Ended, killed and started again, and every record once more: nothing is encoded twice.
        before = len(world.messages("embeddings"))
        assert world.stop("search") == 0, world.log()
        assert world.stop("embed-agent", signal.SIGKILL) == -signal.SIGKILL
        with pytest.raises(UnavailableError, match="No search process answers") as away:
            DealerIQ(f"http://127.0.0.1:{world.http_port}").search("x")
        assert "demo --search" in away.value.remedy
        world.start("embed-agent", "search")
        drill = world.product(5, name="Hammer drill")
        world.send_all("products", saw | {"price": 79.0, "event_time": NOW_MS + 1}, drill)
        world.send_all("documents", manual | {"text": text, "event_time": NOW_MS + 1})
        world.until(lambda: world.search(client, "hammer drill")[:1] == ["5"])
        world.until(lambda: world.search(client, "turbochargers")[:1] == ["11"])
        assert len(world.messages("embeddings")) == before + 1

        # Made again from the topics beside the one in use, which then takes over and reads on.
        folder = IndexFolder(world.folder / "index")
        before = folder.current()
        assert world.run("index", "rebuild", "--json")["vectors"]["text"] >= 6
        assert folder.current() != before
        world.until(lambda: not before.exists())
        world.send_all("products", world.product(6, name="Spirit level"))
        world.until(lambda: world.search(client, "spirit level")[:1] == ["6"])
        assert world.search(client, "hammer drill")[:1] == ["5"]
        assert world.search(client, "bananas")[:1] != ["2"]
        assert [each["in_use"] for each in world.run("index", "ls", "--json")] == [True]
        hits = world.run(
            "search", "hamer drill", "--filter", "price<=5", "--filter", "category=TOOLS", "--json"
        )
        assert hits["hits"][0]["id"] == drill["product_id"]
        prove_that_graph_vectors_are_found(world, client, saw, drill)
        assert world.stop("search", signal.SIGINT) == 0
        prove_that_verify_sees_what_differs(world, client, drill)


def prove_that_feedback_moves_a_hit(world, client):
    """Twenty dealers say that they like a hit; it stays moved through a restart, until a reset."""
    encoder = Encoder("feedback", world.registry.register_all(["feedback"])["feedback-value"])

    def hit():
        return next(each for each in client.search("chainsaw").hits if each.id == f"{world.mark}-1")

    assert hit().weight == 1
    for number in range(20):
        record = {
            "event_id": f"{world.mark}-f{number}", "dealer_id": f"{world.mark}-d{number}", "kind": "thumb",
            "subject_type": "search", "subject_id": hit().feedback_id, "value": 1.0, "comment": None,
            "source": f"{world.mark}-app{number}", "event_time": int(time.time() * 1000),
        }  # fmt: skip
        world.send("feedback", record["dealer_id"], encoder.encode(record))
    world.until(lambda: hit().weight == pytest.approx(1 + 0.3 * 20 / 30, rel=1e-3))
    assert world.stop("search") == 0, world.log()
    world.start("search")
    world.until(lambda: hit().weight == pytest.approx(1 + 0.3 * 20 / 30, rel=1e-3))
    assert world.run("ranking", "show", "--json")["pairs"] >= 1
    for more in ((), ("--execute",)):
        assert hit().weight > 1
        command = [sys.executable, "-m", "dealeriq", "ranking", "reset", *more]
        ran = subprocess.run(command, env=world.variables(), capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, ran.stderr
    world.until(lambda: hit().weight == 1)


def prove_that_graph_vectors_are_found(world, client, saw, drill):
    """The like of a product in the graph: by the vector that the graph published, until it is taken back."""
    vectors = {saw["product_id"]: [1.0, 0.0], drill["product_id"]: [0.8, 0.6]}
    for identity, (x, y) in vectors.items():
        vector = np.zeros(128, "<f4")
        vector[:2] = x, y
        key = chunk_of("product", identity)
        world.send("embeddings", key, {
            "chunk_id": key, "subject_type": "product", "subject_id": identity, "chunk": 0, "kind": "graph",
            "encoder": f"graph-fastrp-128@{world.mark}", "dimension": 128, "vector": vector.tobytes(),
            "fingerprint": "f", "text": None, "dealer_id": None, "event_time": NOW_MS,
        })  # fmt: skip
    like = f"product/{saw['product_id']}"
    hit = world.until(lambda: next(iter(alike(client, like)), None))
    assert (hit.id, hit.why.keys()) == (drill["product_id"], {"like-graph"})
    assert hit.why["like-graph"].score == pytest.approx(0.8, abs=1e-3)
    assert hit.text.startswith("Hammer drill")
    both = client.search(like=like)
    assert both.kinds == ["text", "graph"]
    assert next(each for each in both.hits if each.id == drill["product_id"]).why.keys() >= {"like-graph"}
    found = world.run("search", "--like", like, "--kind", "graph", "--json")
    assert [each["id"] for each in found["hits"]] == [drill["product_id"]]
    with pytest.raises(RequestError, match="holds no vectors of kind image"):
        client.search(like=like, kinds=["image"])


def alike(client, like):
    """What is like a product in the graph; nothing while the product has no graph vector there."""
    try:
        return client.search(like=like, kinds=["graph"]).hits
    except RequestError:
        return []


def prove_that_verify_sees_what_differs(world, client, drill):
    """Nothing differs; then one vector is turned, one chunk is lost, and one is from nowhere."""

    def verified():
        world.start("search")
        world.until(lambda: client.search("hammer drill").hits)
        settings = load({**world.variables()})
        check = verify_vectors(
            asker(settings), Broker(settings.kafka), world.registry, sampled=False, pause=lambda: None
        )
        assert world.stop("search") == 0, world.log()
        return check

    whole = verified()
    assert whole.findings == []
    assert whole.entries == sum(whole.vectors.values())
    assert whole.vectors["text"] >= 6
    assert whole.vectors["graph"] >= 2
    settings = load(world.variables())
    version = IndexFolder(world.folder / "index").current()
    index = open_version(version, settings, kinds_of(settings, packaged_encoder()))
    mine = {each.fields["text"]: each for each in index.scan([AnyOf("entry", ["chunk"])], vectors=True)}
    graph = index.get([chunk_of("product", drill["product_id"])], vectors=True)
    ((bent, entry),) = graph.items()
    index.put([replace(entry, dense={"graph": entry.dense["graph"][::-1].copy()})])
    (turned,) = (each for text, each in mine.items() if text.startswith("Hammer drill"))
    (lost,) = (each for text, each in mine.items() if text.startswith("Spirit level"))
    index.put([replace(turned, dense={"text": -turned.dense["text"]}), replace(turned, id="0" * 32)])
    index.delete([lost.id])
    index.close()
    found = {(each.kind, each.entity) for each in verified().findings}
    assert found == {
        ("vector", (turned.id,)),
        ("missing-vector", (lost.id,)),
        ("extra-vector", ("0" * 32,)),
        ("vector", (bent,)),
    }
    assert drill["product_id"] == turned.fields["subject_id"]


def test_search_that_is_not_there_says_what_to_do(world):
    world.start("http")
    with DealerIQ(f"http://127.0.0.1:{world.http_port}") as client:
        world.until(lambda: client.health().ready)
        url = f"http://127.0.0.1:{world.http_port}/v1/search?q=saw"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=20)
        problem = json.load(caught.value)
        assert (caught.value.code, problem["type"]) == (503, "/problems/search-unavailable")
        assert "search.enabled" in problem["remedy"]
