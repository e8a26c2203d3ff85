"""The lake writer as a process that tests kill, what it must have stored, and what feeds it meanwhile."""

import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
from confluent_kafka import TopicPartition

from connectors.kafka import consumer, producer
from connectors.lake import Root, relation
from connectors.registry import Registry
from dealeriq.settings import Settings
from schemas.codec import Encoder

TOPIC = "inventory"
PATIENCE_S = 240.0
IMPORTED = (
    "duckdb",
    "connectors.lake",
    "connectors.registry",
    "streams.views.lake_upkeep",
    "streams.views.lake_view",
    "streams.views.runner",
)


def work(environment: dict[str, str], log: str) -> None:
    """The process `lake-view`, in a child that was forked with everything imported."""
    from dealeriq.processes import main

    into = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(into, 1)
    os.dup2(into, 2)
    os.environ.update(environment)
    sys.exit(main(["lake-view"]))


class Writer:
    """The process `lake-view` on a lake of its own, started again after each kill."""

    def __init__(self, stack: Settings, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.root = folder / "lake"
        self.log = folder / "log"
        self._environment = stack.environment() | {
            "DEALERIQ_DATA_DIR": str(folder),
            "DEALERIQ_LAKE__TOPICS": f'["{TOPIC}"]',
            "DEALERIQ_LAKE__FLUSH_S": "0.05",
            "DEALERIQ_LAKE__FLUSH_RECORDS": "500",
            "DEALERIQ_LAKE__COMPACT_EVERY_S": "0.3",
            "DEALERIQ_LAKE__CURRENT_EVERY_S": "0.3",
            **(variables or {}),
        }
        # Ten starts of an interpreter would take most of the test's time.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["dealeriq.processes", *IMPORTED])
        self.child: Any = None

    def start(self) -> None:
        self.child = self._processes.Process(target=work, args=(self._environment, str(self.log)))
        self.child.start()

    def kill(self) -> None:
        self.child.kill()
        self.child.join(60)

    def stop(self) -> int | None:
        self.child.terminate()
        self.child.join(60)
        return self.child.exitcode  # type: ignore[no-any-return]


def ends(stack: Settings) -> dict[int, int]:
    reader = consumer(stack.kafka, "test-lake-ends")
    try:
        found = {
            number: reader.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=30)[1]
            for number in range(4)
        }
    finally:
        reader.close()
    return {number: end for number, end in found.items() if end}


def logged(stack: Settings) -> list[tuple[int, int, int | None, bool]]:
    """Every record of the topic, read on its own: partition, offset, checksum, tombstone."""
    reader = consumer(stack.kafka, "test-lake-log")
    target = ends(stack)
    reader.assign([TopicPartition(TOPIC, number, 0) for number in target])
    found = []
    left = dict(target)
    deadline = time.monotonic() + PATIENCE_S
    while left:
        assert time.monotonic() < deadline, left
        for message in reader.consume(1_000, 0.2):
            value = message.value()
            where = (message.partition(), message.offset())
            found.append((*where, None if value is None else crc32(value), value is None))
            if message.offset() + 1 >= target[message.partition()]:
                left.pop(message.partition(), None)
    reader.close()
    return sorted(found, key=lambda each: each[:2])


def stored(root: Root) -> list[tuple[Any, ...]]:
    with duckdb.connect() as sql:
        rows = relation(sql, root, TOPIC).project("_partition, _offset, _crc, _tombstone")
        return rows.order("_partition, _offset").fetchall()  # type: ignore[no-any-return]


def produce(stack: Settings, stop: threading.Event, seed: int) -> None:
    pick = random.Random(seed)
    ids = Registry(stack.registry).register_all([TOPIC])
    encoder = Encoder(TOPIC, ids[f"{TOPIC}-value"])
    out = producer(stack.kafka, linger_ms=1)
    number = 0
    while not stop.is_set():
        for _ in range(pick.randrange(1, 40)):
            number += 1
            dealer = f"D{pick.randrange(30)}"
            record = {
                "event_id": f"{seed}-{number}", "dealer_id": dealer, "product_id": f"P{number}",
                "on_hand": number % 90, "event_time": 1_700_000_000_000 + number,
            }  # fmt: skip
            value: bytes | None = encoder.encode(record)
            if number % 97 == 0:
                value = pick.choice([None, b"\x00\x00", b"poison", (value or b"") + b"\x01"])
            out.produce(TOPIC, value, key=dealer)
        out.flush(30)
        stop.wait(0.05)
