"""Ports of the local services: the well-known one if it is free, else another, and the same again next time."""

import json
import random
import socket
import threading
import time
from pathlib import Path

__all__ = ["Ports", "is_free"]

HOST = "127.0.0.1"
# Below Linux's ephemeral range (32768 up), so that no outgoing connection takes a port between choice and bind.
_SPARE = range(20000, 32000)


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _await_free(port: int, patience_s: float = 2.0) -> None:
    """Waits a little for a port of last time: after kill -9 the old server may be dying still."""
    deadline = time.monotonic() + patience_s
    while not is_free(port) and time.monotonic() < deadline:
        time.sleep(0.05)


class Ports:
    """The ports of one data folder, kept in `ports.json` there.

    A restart takes the same ports as long as they are free, so that Kafka's advertised address, and what
    people configured against it, stay true.
    """

    def __init__(self, data_dir: Path, prefer_defaults: bool = True) -> None:
        self._file = data_dir / "ports.json"
        self._prefer_defaults = prefer_defaults
        self._taken: dict[str, int] = {}
        self._guard = threading.Lock()
        try:
            kept = json.loads(self._file.read_text())
            self._kept = {str(name): int(port) for name, port in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            self._kept = {}

    def take(self, name: str, default: int) -> int:
        """The port for `name`: the one of last time, else `default`, else a free one."""
        with self._guard:
            return self._take(name, default)

    def _take(self, name: str, default: int) -> int:
        if name in self._taken:
            return self._taken[name]
        candidates = [self._kept[name]] if name in self._kept else []
        if self._prefer_defaults:
            candidates.append(default)
        used = set(self._taken.values())
        if candidates and name in self._kept:
            _await_free(candidates[0])
        port = next((c for c in candidates if c not in used and is_free(c)), None)
        while port is None:
            spare = random.choice(_SPARE)
            if spare not in used and spare not in self._kept.values() and is_free(spare):
                port = spare
        self._taken[name] = port
        self._kept[name] = port
        self._file.write_text(json.dumps(self._kept, indent=1, sort_keys=True) + "\n")
        return port
