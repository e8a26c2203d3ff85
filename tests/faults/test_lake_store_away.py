"""The lake view on S3, and S3 away: it waits, says so, goes on, and has every record once."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lake_writer import PATIENCE_S, TOPIC, Writer, ends, logged, produce, stored
from s3_server import S3Server

from connectors.kafka import ensure_topics
from connectors.lake import Lake, LakeTableMissingError, positions
from connectors.registry import Registry
from dealeriq.settings import Settings
from streams.verify.broker import Broker
from streams.verify.lake import verify_table

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(420)]


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    folder = tmp_path / "s3"
    folder.mkdir()
    server = S3Server(folder)
    server.start()
    yield server
    server.stop()


def until(seen: Callable[[], object], what: str, told: Callable[[], str] = lambda: "") -> None:
    """Wait until something is seen; where it never is, fail by what it was, and what is told then."""
    deadline = time.monotonic() + PATIENCE_S / 2
    while not seen():
        assert time.monotonic() < deadline, f"{what} {told()}"
        time.sleep(0.2)


def rows(lake: Lake) -> int:
    try:
        return sum(positions(lake, TOPIC).values())
    except LakeTableMissingError:
        return 0


def test_a_store_that_goes_away_is_waited_for_and_a_wrong_secret_ends_it(
    stack: Settings, s3: S3Server, tmp_path: Path
) -> None:
    ensure_topics(stack.kafka, [TOPIC])
    wrong = Writer(stack, tmp_path, s3.variables("x", secret="not-the-secret"))
    wrong.start()
    wrong.child.join(PATIENCE_S)
    assert wrong.child.exitcode == 3
    (told,) = [line for line in wrong.log.read_text().splitlines() if line.startswith("dealeriq lake-view:")]
    assert "lake.s3_secret_key" in told
    assert "not-the-secret" not in wrong.log.read_text()
    assert "Traceback" not in wrong.log.read_text()

    lake, writer, done = s3.lake("away"), Writer(stack, tmp_path, s3.variables("away")), threading.Event()
    source = threading.Thread(target=produce, args=(stack, done, time.time_ns()))
    source.start()
    try:
        writer.start()
        until(lambda: rows(lake), "the first rows")
        s3.stop()
        until(lambda: "store away, trying again" in writer.log.read_text(), "it says that the store is away")
        assert writer.child.is_alive()
        s3.start()
        before = rows(lake)
        until(lambda: rows(lake) > before, "it goes on")
        s3.stop()  # and once more, wherever it is
        time.sleep(0.5)
        s3.start()
    finally:
        done.set()
        source.join(60)
        target = ends(stack)
        try:
            until(
                lambda: writer.child.is_alive() and positions(lake, TOPIC) == target,
                "every record is there",
                lambda: (
                    f"(exit {writer.child.exitcode}, {positions(lake, TOPIC)} of {target}): "
                    f"{writer.log.read_text()[-3_000:]}"
                ),
            )
        finally:
            stopped = writer.stop()
    assert stopped == 0
    found = stored(lake)
    assert found == logged(stack)
    assert len(found) == len({row[:2] for row in found})
    check = verify_table(lake, Broker(stack.kafka), Registry(stack.registry), TOPIC)
    assert (check.findings, check.rows, check.behind) == ([], len(found), 0)
