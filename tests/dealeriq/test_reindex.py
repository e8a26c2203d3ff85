"""Another encoder takes over while searches go on, through kill -9 of the filling and of the swap."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import httpx
import numpy as np
import pytest

from connectors.kafka import ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from connectors.vectors.folder import IndexFolder
from connectors.whole import WholeTopic
from dealeriq.search.asking import asker
from dealeriq.settings import load
from models.embedding import OWNERS, split
from models.embedding.topics import TOPICS as HOMES
from models.embedding.topics import Homes
from models.text import packaged_encoder, text_encoder
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from streams.verify.broker import Broker
from streams.verify.vectors import verify_vectors
from tests.dealeriq.hash_encoder import HashService, vector
from tests.search_backlog import delete_backlog, skip_backlog

pytestmark = [pytest.mark.services, pytest.mark.timeout(1_800)]

NOW_MS = 1_500_000_000_000
FOLDED = (*HOMES, "products", "documents", "inventory")
NAMES = ["Hammer drill", "Spirit level", "Torque wrench", "Paint roller", "Garden hose", "Tile cutter"]
COUNT = 48


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class World:
    """Processes of one system on the shared services, with products of this test alone."""

    def __init__(self, stack, folder, service):
        self.stack, self.folder, self.service = stack, folder, service
        self.mark, self.port = f"r{uuid.uuid4().hex[:8]}", free_port()
        ensure_topics(stack.kafka)
        self.registry = Registry(stack.registry)
        self.ids = self.registry.register_all(FOLDED)
        self.producer, self.running = producer(stack.kafka), {}
        self.records, self.clock = {}, itertools.count()
        delete_backlog(stack.kafka, OWNERS)
        known = load(self.variables())
        skip_backlog(stack.kafka, known, self.folder / "index", FOLDED, ("embed-agent", "reindex-agent"))

    def variables(self, **more):
        return os.environ | self.stack.environment() | {
            "DEALERIQ_DATA_DIR": str(self.folder),
            "DEALERIQ_SEARCH__ENABLED": "true",
            "DEALERIQ_SEARCH__PORT": str(self.port),
            "DEALERIQ_FEATURES__PROJECT": self.mark,
            "DEALERIQ_METRICS_PORT": "0",
            "DEALERIQ_REINDEX__ENABLED": "true",
            "DEALERIQ_REINDEX__PRICE_PER_MILLION_TOKENS": "2",
            "DEALERIQ_REINDEX__TEXT__ENDPOINT": self.service.address,
            "DEALERIQ_REINDEX__TEXT__ENDPOINT_MODEL": "hash",
        } | more  # fmt: skip

    def command(self, *words):
        return [sys.executable, "-m", "dealeriq", "reindex", *words]

    def run(self, *words, code=0):
        ran = subprocess.run(self.command(*words), env=self.variables(), capture_output=True, timeout=400)
        assert ran.returncode == code, ran.stderr
        return json.loads(ran.stdout) if "--json" in words and code == 0 else ran.stderr.decode()

    def start(self, name, **more):
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "dealeriq.processes", name]
            process = subprocess.Popen(command, env=self.variables(**more), stdout=log, stderr=log)
        self.running[name] = process

    def stop(self, name, how=signal.SIGTERM):
        process = self.running.pop(name)
        process.send_signal(how)
        return process.wait(120)

    def send(self, *numbers, word=""):
        for number in numbers:
            key = f"{self.mark}-{number}"
            record = dict.fromkeys(
                ("subcategory", "product_type", "brand", "manufacturer_id", "package_size", "description")
            )
            record |= {
                "product_id": key, "name": f"{NAMES[number % len(NAMES)]} {self.mark} {number} {word}",
                "category": "TOOLS", "price": 1.0, "currency": "USD", "specs": {}, "image_uri": None,
                "deleted": False, "event_time": NOW_MS + next(self.clock),
            }  # fmt: skip
            record = {name: record.get(name) for name in self.fields}
            self.records[key] = record
            value = Encoder("products", self.ids["products-value"]).encode(record)
            self.producer.produce(
                "products", value, key=key.encode(), headers=headers("e", "products", "test", NOW_MS, key)
            )
        assert self.producer.flush(20) == 0

    @property
    def fields(self):
        from schemas.catalogue import topic

        return [each["name"] for each in topic("products").schema["fields"]]

    def search(self, text):
        answer = httpx.post(f"http://127.0.0.1:{self.port}/v1/search", json={"text": text}, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def until(self, ask, timeout_s=300.0):
        end, told = time.monotonic() + timeout_s, None
        while time.monotonic() < end:
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended: {self.log()}"
            try:
                if told := ask():
                    return told
            except httpx.HTTPError as error:
                told = error
            time.sleep(0.2)
        raise AssertionError(f"not within {timeout_s} s: {told!r}; {self.log()}")

    def log(self):
        return "\n".join(each.read_text()[-2_000:] for each in self.folder.glob("*.log"))

    def finds(self, number, word, encoder):
        def look():
            answer = self.search(f"{NAMES[number % len(NAMES)]} {self.mark} {number} {word}")
            ids = [each["id"] for each in answer["hits"]]
            return answer["encoder"] == encoder and f"{self.mark}-{number}" in ids[:3] and answer

        return self.until(look)

    def home(self, encoder):
        """The newest vectors of this test's products in the encoder's home, read here by itself."""
        name = Homes(connect(self.stack.redis)).of(encoder)
        decoder, newest = Decoder.of_topic(name, self.registry.schema), {}
        with contextlib.closing(WholeTopic(self.stack.kafka, name, "test")) as whole:
            for message in whole.records():
                newest.pop(message.key(), None)
                if message.value() is not None:
                    newest[message.key()] = decoder.decode(message.value())
        return {
            key.decode(): each
            for key, each in newest.items()
            if each["subject_id"].startswith(self.mark) and each["encoder"] == encoder
        }

    def chunks(self):
        """What the products' chunks are now: id → text."""
        return {
            chunk.id: chunk.text
            for key, record in self.records.items()
            for chunk in split("products", key, record)
        }


@pytest.fixture(scope="module")
def world(alone, tmp_path_factory):
    service = HashService()
    made = World(alone, tmp_path_factory.mktemp("reindex"), service)
    try:
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait()
        service.close()


def test_an_encoder_takes_over_and_goes_back(world, tmp_path) -> None:
    first = packaged_encoder().identity
    second = text_encoder(load(world.variables()).reindex.text).identity
    world.send(*range(COUNT))
    world.start("embed-agent")
    world.start("search")
    world.finds(1, "", first)

    planned = world.run("plan", "--json")
    assert planned["encoder"] == second
    assert planned["changed"] >= COUNT
    assert planned["money"] == pytest.approx(planned["tokens"] * 2e-6)

    # Filled within a budget, killed in the middle, and gone on with; an edit comes meanwhile.
    world.service.seen.clear()
    world.start("reindex-agent", DEALERIQ_REINDEX__TEXTS_PER_MINUTE="240")
    mine = lambda: {text: n for text, n in world.service.seen.items() if world.mark in text}  # noqa: E731
    world.until(lambda: len(mine()) >= 12)
    assert world.stop("reindex-agent", signal.SIGKILL) == -signal.SIGKILL
    assert len(mine()) < COUNT
    world.send(3, word="renovated")
    done = world.run("run", "--json")
    assert done["left"] == 0
    assert world.run("plan", "--json")["changed"] == 0
    batch = 240 // 60 * 2
    assert sum(n - 1 for n in mine().values()) <= batch, mine()
    held = world.home(second)
    assert {key: each["text"] for key, each in held.items()} == world.chunks()
    for each in held.values():
        assert np.frombuffer(each["vector"], "<f4") == pytest.approx(vector(each["text"]), abs=1e-6)

    labels = tmp_path / "labels.jsonl"
    queries = [
        {"query": name, "right": [f"product/{world.mark}-{at}" for at in range(number, COUNT, len(NAMES))]}
        for number, name in enumerate(NAMES)
    ]
    labels.write_text("\n".join(map(json.dumps, queries)))
    compared = world.run("compare", "--labels", str(labels), "--json")
    assert compared["queries"] == len(NAMES)
    assert compared["to_come"]["recall"] >= 0.98
    assert compared["in_use"]["recall"] >= 0.98

    # The swap, killed at several moments, while searches go on.
    world.start("reindex-agent")  # what changes from now on goes to both homes
    folder, failed, stop = IndexFolder(world.folder / "index"), [], threading.Event()

    def ask():
        while not stop.wait(0.05):
            try:
                world.search(f"Garden hose {world.mark}")
            except httpx.HTTPError as error:
                failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        before = folder.current()
        for wait_s in (1.0, 3.0, 5.0):
            with subprocess.Popen(
                world.command("swap", "--execute"), env=world.variables(), stdout=-3, stderr=-3
            ) as swap:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    swap.wait(wait_s)
                swap.kill()
            assert folder.current().exists()
            assert folder.current() == before or folder.about(folder.current()) == second
        world.run("swap", "--execute", "--json")
        world.finds(3, "renovated", second)
        world.send(7, word="polished")
        world.finds(7, "polished", second)
        before = world.run("rollback")
        assert first in before or "encoder of [text]" in before
        plain, moved = asker(load(world.variables())), []

        def ask_and_move(path, body):
            if path == "/entries" and not moved:  # the other index takes over between two questions
                moved.append(path)
                world.run("rollback", "--execute")
                world.finds(7, "polished", first)
            return plain(path, body)

        for each in (plain, ask_and_move):
            check = verify_vectors(
                each, Broker(world.stack.kafka), world.registry, sampled=False, pause=lambda: None
            )
            assert check.findings == []
            assert check.entries >= COUNT
        assert moved
    finally:
        stop.set()
        asking.join()
    assert failed == []
