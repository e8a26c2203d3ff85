"""The process that scores order lines, on a real Kafka: every line once, through kill -9, aborts and swaps."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from line_model import INPUTS, line_model, order

from connectors.kafka import consumer, ensure_topics, producer
from connectors.registry import Registry
from dealeriq.settings import Settings
from models.lifecycle_log import LifecycleLog
from models.runtime import Session
from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

LINES = 4_000


class Process:
    """One `line-scorer` process of a project of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._log = folder / "line-scorer.log"
        self._variables = os.environ | settings.environment() | {
            "DEALERIQ_DATA_DIR": str(folder), "DEALERIQ_FEATURES__PROJECT": f"t{uuid.uuid4().hex[:8]}",
            "DEALERIQ_SCORING__LINE_SAMPLE": "1", "DEALERIQ_SCORING__FOLLOW_S": "0.1",
            "DEALERIQ_SCORING__LINE_BATCH_RECORDS": "100", "DEALERIQ_METRICS_PORT": "0",
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as out:
            command = [sys.executable, "-m", "dealeriq.processes", "line-scorer"]
            self._process = subprocess.Popen(command, env=self._variables, stdout=out, stderr=out)

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(60)

    def end(self) -> None:
        """Leave nothing behind, however the test ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)

    def log(self) -> str:
        return self._log.read_text()[-3_000:]


def scores(settings: Settings, model: str, tag: str) -> list[dict[str, Any]]:
    """Every committed score of a model, of lines whose ids begin with `tag`: others send orders, too."""
    decoder = Decoder.of_topic("scores", Registry(settings.registry).schema)
    reader = consumer(settings.kafka, f"test-{uuid.uuid4().hex}", enable_partition_eof=True)
    found = []
    try:
        left = set(range(settings.kafka.partitions_of(topic("scores"))))
        reader.assign([TopicPartition("scores", number, 0) for number in left])
        while left:
            for message in reader.consume(1_000, 0.2):
                if message.error() is not None:
                    left.discard(message.partition())
                else:
                    found.append(decoder.decode(message.value()))
    finally:
        reader.close()
    return [each for each in found if each["model"] == model and each["subject_id"].startswith(tag)]


def test_every_line_is_scored_once_through_kills_and_a_swap(
    alone: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:  # fmt: skip
    tag = uuid.uuid4().hex[:8]
    model, rng = f"lines_{tag}", random.Random(1)
    versions = [line_model(tmp_path, model, seed) for seed in (1, 2)]
    ensure_topics(alone.kafka, ["orders", "scores", "model.lifecycle"])
    encoder = Encoder("orders", Registry(alone.registry).register_all(["orders"])["orders-value"])
    writer = producer(alone.kafka)
    process = Process(alone, tmp_path)
    request.addfinalizer(process.end)

    def send(first: int, count: int) -> None:
        for number in range(first, first + count):
            line = order(number, rng, 1_500_000_000_000 + number, tag)
            writer.produce("orders", encoder.encode(line), key=line["dealer_id"].encode())
        assert writer.flush(60) == 0

    with LifecycleLog(alone.kafka, alone.registry) as log:
        log.catch_up()
        for where, told in versions:
            log.write(
                model, told.version, "registered", "a test", cause=uuid.uuid4().hex, reason="training",
                artifact=str(where), sha256=told.sha256,
            )  # fmt: skip
        log.write(model, versions[0][1].version, "champion", "a test", cause=uuid.uuid4().hex, reason="gates")
        process.start()
        # Killed at moments of its work, with transactions open; what it finds after each start is a backlog.
        for kill in range(3):
            before = len(scores(alone, model, tag))
            send(kill * LINES // 4, LINES // 4)
            deadline = time.monotonic() + 200
            while len(scores(alone, model, tag)) == before:
                assert time.monotonic() < deadline, process.log()
                time.sleep(0.2)
            assert process.stop(signal.SIGKILL) == -signal.SIGKILL
            if kill == 1:
                log.catch_up()
                second = versions[1][1].version
                log.write(model, second, "champion", "a test", cause=uuid.uuid4().hex, reason="gates")
            process.start()
        send(3 * LINES // 4, LINES // 4)
    deadline = time.monotonic() + 200
    while len(found := scores(alone, model, tag)) < LINES:
        assert time.monotonic() < deadline, f"{len(found)} of {LINES}: {process.log()}"
        time.sleep(0.2)
    assert process.stop() == 0, process.log()
    found = scores(alone, model, tag)
    assert Counter(each["subject_id"] for each in found) == {f"{tag}line-{n}": 1 for n in range(LINES)}
    by_version = {told.version: Session(where) for where, told in versions}
    assert {each["model_version"] for each in found} == set(by_version)
    for version, session in by_version.items():
        mine = [each for each in found if each["model_version"] == version]
        vectors = np.array([[each["features"][one.name] for one in INPUTS] for each in mine], np.float64)
        assert session.run(vectors.astype(np.float32))[:, 0].tolist() == [each["score"] for each in mine]
