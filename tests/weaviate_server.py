"""A real Weaviate, where its binary is found: on the path as `weaviate-server`, or where WEAVIATE_SERVER says.

`go install github.com/weaviate/weaviate/cmd/weaviate-server@v1.35.2` builds it in some minutes.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx

ABSENT = (
    "no package brings a Weaviate server; `go install` builds one (tests/weaviate_server.py): put "
    "weaviate-server on the path, or name it in WEAVIATE_SERVER"
)


def binary() -> str | None:
    """Return the path of the server, None where there is none."""
    return os.environ.get("WEAVIATE_SERVER") or shutil.which("weaviate-server")


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in taken]
    finally:
        for each in taken:
            each.close()


class WeaviateServer:
    """One node in a folder, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        port, grpc, gossip, data, raft, rpc, profile = _free_ports(7)
        self.address = f"http://127.0.0.1:{port}"
        variables = os.environ | {
            "PERSISTENCE_DATA_PATH": str(folder / "data"),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true",
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_GOSSIP_BIND_PORT": str(gossip),
            "CLUSTER_DATA_BIND_PORT": str(data),
            "RAFT_PORT": str(raft),
            "RAFT_INTERNAL_RPC_PORT": str(rpc),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "GRPC_PORT": str(grpc),
            "GO_PROFILING_PORT": str(profile),
            "DISABLE_TELEMETRY": "true",
            "DISABLE_LAZY_LOAD_SHARDS": "true",
        }
        self.log = folder / "weaviate.log"
        command = [str(binary()), "--scheme", "http", "--host", "127.0.0.1", "--port", str(port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        self._wait()

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _wait(self, timeout_s: float = 120.0) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx.get(f"{self.address}/v1/.well-known/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        self.process.kill()
        raise AssertionError(f"Weaviate did not start: {self.log.read_text()[-2000:]}")
