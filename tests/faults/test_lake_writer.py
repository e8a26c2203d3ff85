"""The lake writer killed at any moment: rows equal records, each once, in a table that opens."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lake_writer import PATIENCE_S, TOPIC, Writer, ends, logged, produce, stored

from connectors.kafka import ensure_topics
from connectors.lake import files, positions
from dealeriq.settings import Settings

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(420)]


@pytest.fixture
def writer(stack: Settings, tmp_path: Path) -> Iterator[Writer]:
    ensure_topics(stack.kafka, [TOPIC])
    running = Writer(stack, tmp_path)
    yield running
    if running.child is not None and running.child.is_alive():
        running.kill()


def test_ten_kills_at_random_moments_leave_neither_gap_nor_duplicate(stack: Settings, writer: Writer) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    pick = random.Random(seed)
    done = threading.Event()
    source = threading.Thread(target=produce, args=(stack, done, seed))
    source.start()
    try:
        for _ in range(10):
            before = time.monotonic()
            seen = len(commits(writer.root))
            writer.start()
            # At work, then anywhere between two commits.
            while len(commits(writer.root)) == seen and time.monotonic() - before < PATIENCE_S:
                assert writer.child.is_alive()
                time.sleep(0.01)
            time.sleep(pick.random() * 0.5)
            writer.kill()
    finally:
        done.set()
        source.join(60)
    writer.start()
    deadline = time.monotonic() + PATIENCE_S
    target = ends(stack)
    while not commits(writer.root) or positions(writer.root, TOPIC) != target:
        assert time.monotonic() < deadline, (positions(writer.root, TOPIC), target)
        time.sleep(0.2)
    assert writer.stop() == 0
    found = stored(writer.root)
    assert found == logged(stack)
    assert len(found) == len({row[:2] for row in found})
    assert files(writer.root, TOPIC)


def commits(root: Path) -> list[Path]:
    return sorted((root / TOPIC / "_delta_log").glob("*[0-9].json"))
