"""A lean HTTP load generator: keep-alive connections, one request in flight on each, no pipelining.

Runs in a process of its own (`python -m benchmarks.load`), the same for every peer, and prints one JSON line.
Requests are bytes made beforehand; only the status line and Content-Length of an answer are looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from urllib.parse import urlsplit

__all__ = ["Result", "request_bytes"]


@dataclass(frozen=True)
class Result:
    """What one run saw; latencies in milliseconds, from writing a request to having its whole answer."""

    sent: int
    """Requests answered, those of the warm-up with them; all else leaves the warm-up out."""
    requests: int
    failed: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


def request_bytes(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """One HTTP/1.1 request, ready to be written."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc}"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class _Connection(asyncio.Protocol):
    """Sends the next request when an answer is complete."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._missing = -1
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._run.open.append(transport)  # type: ignore[arg-type]
        self._next()

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._ok = head[9:12] == b"200"
            self._missing = length - (len(self._buffer) - end - 4)
            self._buffer = b""
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            self._missing = -1
            self._run.answered(time.perf_counter() - self._sent_at, self._ok)
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.lost()

    def _next(self) -> None:
        self._sent_at = time.perf_counter()
        if self._sent_at < self._run.until:
            self._transport.write(next(self._run.requests))  # type: ignore[attr-defined]
        else:
            self._transport.close()


class _Run:
    def __init__(self, requests: Sequence[bytes], warm_s: float, seconds: float, done: asyncio.Event) -> None:
        self.requests = cycle(requests)
        self.begin = time.perf_counter() + warm_s
        self.until = self.begin + seconds
        self.open: list[asyncio.Transport] = []
        self.latencies: list[float] = []
        self.sent = self.failed = 0
        self._done = done

    def answered(self, seconds: float, ok: bool) -> None:
        self.sent += 1
        if time.perf_counter() >= self.begin:
            self.latencies.append(seconds)
            self.failed += not ok

    def lost(self) -> None:
        if time.perf_counter() < self.until:
            self.failed += 1
        if all(transport.is_closing() for transport in self.open):
            self._done.set()


async def load(requests: Sequence[bytes], host: str, port: int, connections: int, seconds: float) -> Result:
    """Ask for `seconds` after a warm-up of one second, in turn over `requests`."""
    done = asyncio.Event()
    run = _Run(requests, 1.0, seconds, done)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(run), host, port)
    await asyncio.wait_for(done.wait(), seconds + 60)
    ordered = sorted(run.latencies)
    if not ordered:
        raise SystemExit("not one answer came")

    def quantile(q: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000, 3)

    return Result(
        run.sent,
        len(ordered),
        run.failed,
        seconds,
        round(len(ordered) / seconds, 1),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
    )


def main() -> None:
    """Read `[{"url":…, "method":…, "body":…}]` from stdin, put load on it, print the result."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    given = json.load(sys.stdin)
    requests = [
        request_bytes(
            one["url"], one.get("method", "GET"), json.dumps(one["body"]).encode() if "body" in one else None
        )
        for one in given
    ]
    where = urlsplit(given[0]["url"])
    with contextlib.suppress(ImportError):  # a peer's environment may lack it; both sides use the same one
        import uvloop

        uvloop.install()
    host, port = where.hostname or "127.0.0.1", where.port or 80
    result = asyncio.run(load(requests, host, port, arguments.connections, arguments.seconds))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
