"""An endpoint in the local session's place: our own inference process, killed, stopped and lying on the way."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dealeriq.settings import Settings
from features.plan import load
from models.lifecycle_log import LifecycleLog
from models.oip.client import RemoteUnavailableError
from models.runtime import RuntimeSettings, Session, open_registered
from models.runtime.remote import RemoteSession
from streams.scoring.served import REMOTE, ServedModels
from tests.dealeriq.inference_world import World, vectors
from tests.streams.scoring_model import folder

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def world(stack: Settings, tmp_path: Path) -> Iterator[World]:
    made = World(stack, tmp_path)
    made.decide(made.v1, "champion")
    made.ports = {
        "DEALERIQ_INFERENCE__PORT": str(free_port()), "DEALERIQ_INFERENCE__GRPC_PORT": str(free_port()),
    }  # fmt: skip
    made.start(**made.ports)
    yield made
    if made.process is not None:
        made.process.send_signal(signal.SIGCONT)
        made.stop(signal.SIGKILL)


def settings_of(address: str, **more: Any) -> RuntimeSettings:
    given: dict[str, Any] = {
        "remote": address, "remote_timeout_s": 2.0, "remote_failures": 2, "remote_retry_s": 0.3,
    }  # fmt: skip
    return RuntimeSettings(**given | more)


def test_a_killed_endpoint_costs_no_answer(world: World) -> None:
    addresses = (f"http://{world.url}", f"grpc://{world.grpc}")
    seen: list[list[str]] = [[], []]
    with LifecycleLog(world.stack.kafka, world.stack.registry) as log:
        log.catch_up()
        state = log.registry.state(world.model)
        sessions = [
            open_registered(state, world.v1, settings_of(address), lambda _, who, at=at: seen[at].append(who))
            for at, address in enumerate(addresses)
        ]
        models = ServedModels(load(), settings_of(addresses[0]))
        models.refresh(log.registry)
    assert all(isinstance(each, RemoteSession) for each in sessions)
    x = vectors(20)
    expected = world.sessions[world.v1].run(x)
    # The scorers of the stream ask it, too.
    scorer = models.current()[world.model].champion
    world.until(lambda: scorer.session.run(x) is not None and counted(world))
    stop, errors, longest = threading.Event(), [], [0.0, 0.0]

    def ask(at: int) -> None:
        try:
            while not stop.is_set():
                began = time.monotonic()
                np.testing.assert_array_equal(sessions[at].run(x), expected)
                longest[at] = max(longest[at], time.monotonic() - began)
        except BaseException as error:
            errors.append(error)

    def all_by(who: str) -> bool:
        assert not errors, errors
        return all(each and each[-1] == who for each in seen)

    threads = [threading.Thread(target=ask, args=(at,)) for at in (0, 1)]
    for each in threads:
        each.start()
    world.until(lambda: all_by("remote"))
    assert world.stop(signal.SIGKILL) == -signal.SIGKILL
    world.until(lambda: all_by("local"))
    world.start(**world.ports)
    world.until(lambda: all_by("remote"))
    assert world.process is not None
    world.process.send_signal(signal.SIGSTOP)  # it takes calls, and never answers
    world.until(lambda: all_by("local"))
    world.process.send_signal(signal.SIGCONT)
    world.until(lambda: all_by("remote"))
    stop.set()
    for each in threads:
        each.join(60)
    assert not errors, errors
    assert max(longest) < 60  # two seconds, and what a busy machine adds


def counted(world: World) -> bool:
    found = [
        sample.value for metric in REMOTE.collect() for sample in metric.samples
        if sample.labels == {"model": world.model, "outcome": "remote"}
        and sample.name == "dealeriq_model_remote_batches_total"
    ]  # fmt: skip
    return bool(found) and found[0] > 0


def test_what_the_endpoint_must_not_answer_with_is_not_taken(world: World) -> None:
    x, address = vectors(5), f"http://{world.url}"
    folders = world.folders

    def session_of(version: str, named: str, **more: Any) -> tuple[Session, list[str]]:
        seen: list[str] = []
        settings = settings_of(address, **more)
        return RemoteSession(folders[version], settings, named, lambda _, who: seen.append(who)), seen

    right, seen = session_of(world.v1, world.v1)
    world.until(lambda: right.run(x) is not None and seen[-1] == "remote")
    # Another model under the name that was asked for, and a name that the endpoint has not.
    for version, named in ((world.v2, world.v1), (world.v1, "1")):
        session, seen = session_of(version, named)
        for _ in range(4):
            np.testing.assert_array_equal(session.run(x), world.sessions[version].run(x))
        assert set(seen) == {"local"}
        waiting, seen = session_of(version, named, remote_fallback="wait", remote_failures=1)
        words = "serves another model" if named == world.v1 else "answers 404"
        with pytest.raises(RemoteUnavailableError, match=words):
            waiting.run(x)
        with pytest.raises(RemoteUnavailableError, match=f"{words}|left alone"):
            waiting.run(x)
        assert set(seen) == {"refused"}
    # A batch is cut as the endpoint takes it.
    small, seen = session_of(world.v1, world.v1, batch_size=2)
    np.testing.assert_array_equal(small.run(x), world.sessions[world.v1].run(x))
    assert seen == ["remote"] * 3


def test_an_endpoint_that_trickles_is_given_up(tmp_path: Path) -> None:
    """A server that sends one byte now and then keeps every read short, and the answer unfinished."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not stop.wait(0.05):
            try:
                connection.sendall(b" ")
            except OSError:
                return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    where, told = folder(tmp_path, "busy")
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = settings_of(address, remote_timeout_s=0.5, remote_failures=1, remote_retry_s=60)
    session, x = RemoteSession(where, settings, told.version), vectors(3)
    began = time.monotonic()
    np.testing.assert_array_equal(session.run(x), Session(where).run(x))
    assert time.monotonic() - began < 20
    stop.set()
    thread.join(20)
    listener.close()
