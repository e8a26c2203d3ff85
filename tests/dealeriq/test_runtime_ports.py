"""Ports: the default if free, another if taken, and the same again next time."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dealeriq.runtime.ports import Ports, is_free


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_default_gives_a_free_port(tmp_path: Path, busy: int) -> None:
    port = Ports(tmp_path).take("kafka", busy)
    assert port != busy
    assert is_free(port)


def test_a_restart_takes_the_same_port(tmp_path: Path, busy: int) -> None:
    first = Ports(tmp_path).take("kafka", busy)
    assert Ports(tmp_path).take("kafka", 1) == first


def test_a_damaged_file_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[1, 2")
    assert Ports(tmp_path, prefer_defaults=False).take("kafka", 9092) != 9092


def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    assert ports.take("a", 29_999) != ports.take("b", 29_999)


@pytest.mark.parametrize(
    ("process", "setting"), [("http", "DEALERIQ_HTTP__PORT"), ("feature-view", "DEALERIQ_METRICS_PORT")]
)
def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path, busy: int, process: str, setting: str) -> None:
    given = {
        "DEALERIQ_KAFKA__BOOTSTRAP": "127.0.0.1:9", "DEALERIQ_REGISTRY__URL": "http://127.0.0.1:9",
        "DEALERIQ_REDIS__URL": "redis://127.0.0.1:9/0", setting: str(busy),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "dealeriq.processes", process],
        env={**os.environ, **given}, cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if not line.startswith("%")]
    assert done.returncode == 3, done.stderr
    assert len(told) == 1, done.stderr
    assert setting in told[0]
