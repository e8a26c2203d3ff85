"""A refresh encodes what a new encoder lacks, once, of what is there, and nothing of what has not changed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
from typer.testing import CliRunner

from connectors.kafka import ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.cli.embeddings import app
from dealeriq.reindex.refreshing import AgentAwayError
from dealeriq.settings import load
from models.embedding import OWNERS, split
from models.embedding.topics import Homes
from models.text import text_encoder
from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from streams.agents.refresh import RefreshLog
from tests.dealeriq.hash_encoder import HashService
from tests.search_backlog import delete_backlog, skip_backlog

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

NOW_MS = 1_500_000_000_000
COUNT = 40
DAY_MS = 86_400_000
PATIENCE_S = 120.0


class World:
    """An embed agent on a service that counts what it encodes, and products of this test alone."""

    def __init__(self, stack, folder, service):
        self.stack, self.folder, self.service = stack, folder, service
        self.mark, self.clock = f"f{uuid.uuid4().hex[:8]}", itertools.count()
        ensure_topics(stack.kafka)
        self.registry = Registry(stack.registry)
        self.encode = Encoder("products", self.registry.register_all(["products"])["products-value"]).encode
        self.producer, self.process, self.texts = producer(stack.kafka), None, {}
        delete_backlog(stack.kafka, OWNERS)
        skip_backlog(
            stack.kafka,
            load(self.variables("a")),
            folder / "index",
            tuple(OWNERS),
            ("embed-agent",),
        )

    def variables(self, model):
        return os.environ | self.stack.environment() | {
            "DEALERIQ_DATA_DIR": str(self.folder),
            "DEALERIQ_TEXT__ENDPOINT": self.service.address,
            "DEALERIQ_TEXT__ENDPOINT_MODEL": f"{model}-{self.mark}",
            "DEALERIQ_METRICS_PORT": "0",
        }  # fmt: skip

    def start(self, model):
        with (self.folder / "agent.log").open("ab") as log:
            command = [sys.executable, "-m", "dealeriq.processes", "embed-agent"]
            self.process = subprocess.Popen(command, env=self.variables(model), stdout=log, stderr=log)

    def stop(self, how=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
        self.process = None

    def run(self, model, *words, code=0):
        settings = load(self.variables(model))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("dealeriq.settings.load", lambda: settings)
            ran = CliRunner().invoke(app, ["refresh", *words])
        if code:
            assert isinstance(ran.exception, AgentAwayError)
            assert ran.exception.exit_code == code
            return str(ran.exception)
        assert ran.exit_code == 0, ran.exception
        return json.loads(ran.stdout)

    def send(self, number, **more):
        key = f"{self.mark}-{number}"
        record = dict.fromkeys(each["name"] for each in topic("products").schema["fields"])
        record |= {
            "product_id": key, "name": f"Hammer {number} {self.mark}", "category": "TOOLS", "price": 1.0,
            "deleted": False, "event_time": NOW_MS + next(self.clock),
        } | more  # fmt: skip
        found = split("products", key, record)
        self.texts[key] = found[0].text if found else self.texts[key]
        self.producer.produce(
            "products",
            self.encode(record),
            key=key.encode(),
            headers=headers("e", "products", "t", NOW_MS, key),
        )

    def counts(self):
        return {key: self.service.seen[text] for key, text in self.texts.items()}

    def newest(self, encoder):
        """The newest vectors of this test's products by an encoder."""
        name = Homes(connect(self.stack.redis)).of(encoder)
        if name is None:
            return {}
        decoder, found = Decoder.of_topic(name, self.registry.schema), {}
        with contextlib.closing(WholeTopic(self.stack.kafka, name, "test")) as whole:
            for message in whole.records():
                found.pop(message.key(), None)
                if message.value() is not None:
                    found[message.key()] = decoder.decode(message.value())
        return {
            each["subject_id"]: each
            for each in found.values()
            if each["subject_id"].startswith(self.mark) and each["encoder"] == encoder
        }

    def until(self, holds):
        end = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert self.process is None or self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.2)
        return found

    def log(self):
        return (self.folder / "agent.log").read_text()[-3_000:]


@pytest.fixture
def world(alone, tmp_path):
    service = HashService()
    made = World(alone, tmp_path, service)
    try:
        yield made
    finally:
        made.stop(signal.SIGKILL)
        service.close()


def test_a_new_encoder_encodes_what_is_there_once_and_a_second_refresh_nothing(world):
    for number in range(COUNT):
        world.send(number)
    world.send(0, name=f"Renamed {world.mark}")  # two records of one key: the newest counts
    world.producer.flush(30)
    first, second = (text_encoder(load(world.variables(each)).text).identity for each in "ab")
    world.start("a")
    world.until(lambda: len(world.newest(first)) == COUNT)
    world.send(1, deleted=True)
    world.producer.flush(30)
    world.until(lambda: len(world.newest(first)) == COUNT - 1)
    world.stop()

    before = world.counts()
    planned = world.run("b", "--json")["text"]
    assert planned["encoder"] == second
    assert COUNT - 1 <= planned["changed"] == planned["records"]
    assert planned["tokens"] > 0
    sampled = {key: count - before[key] for key, count in world.counts().items()}  # to measure the rate
    assert "are not refreshed" in world.run("b", "--execute", "--wait", "1", code=4)
    world.start("b")  # what was asked for is done when it runs
    gone = f"{world.mark}-1"
    world.until(lambda: world.newest(second).keys() == world.texts.keys() - {gone})
    done = world.run("b", "--execute", "--json")["embed-agent"]
    assert done["records"] >= planned["records"]
    assert world.counts() == {key: before[key] + sampled[key] + (key != gone) for key in before}
    assert not world.newest(first)
    assert {each["text"] for each in world.newest(second).values()} == {
        text for key, text in world.texts.items() if key != gone
    }
    assert world.run("b", "--json")["text"]["changed"] == 0
    wanted = world.counts()

    log, week_ago = RefreshLog(connect(world.stack.redis), "embed-agent"), int(time.time() * 1000) - 8 * DAY_MS
    for place, last in log.done().items():
        log.write(place, last._replace(at_ms=week_ago))
    world.until(lambda: min(each.at_ms for each in log.done().values()) > week_ago)  # by itself
    assert world.counts() == wanted
