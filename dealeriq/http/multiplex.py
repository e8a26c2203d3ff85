"""One Redis connection that many concurrent requests share.

Commands of the same event-loop turn leave in one write and their replies are matched by order, so a request
costs a fraction of what a pooled connection with a task switch per command does. Read commands only: nothing
that blocks (BLPOP), subscribes or opens a transaction belongs here.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from schemas.errors import DealerIQError

__all__ = ["MultiplexedRedis", "StoreUnavailableError"]

Argument = bytes | str | int | float | memoryview


class StoreUnavailableError(DealerIQError):
    """Redis cannot be reached, did not answer in time, or refused the command.

    Remedy: see that Redis runs at the address and accepts the credentials; the connection is retried by itself.
    """

    remedy = "See that Redis runs at the address that `dealeriq config` shows; reads resume by themselves."
    exit_code = 4


class _Call:
    """Replies still expected for one caller."""

    __slots__ = ("future", "missing", "replies", "sent_at")

    def __init__(self, future: asyncio.Future[list[Any]], missing: int, sent_at: float) -> None:
        self.future, self.missing, self.sent_at = future, missing, sent_at
        self.replies: list[Any] = []


class MultiplexedRedis(asyncio.Protocol):
    """A self-healing connection; `run` sends commands and returns a future of their replies.

    Args:
        url: `redis://`, `rediss://` or `unix://` address with optional credentials and database.
        timeout: seconds that a reply may take before the connection is taken for dead.
        context: TLS context for `rediss://`; None uses the system's certificate authorities.
    """

    def __init__(self, url: str, *, timeout: float = 2.0, context: ssl.SSLContext | None = None) -> None:
        self._target: dict[str, Any] = dict(parse_url(url))
        self._timeout, self._context = timeout, context
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._outgoing: list[bytes] = []
        self._waiting: deque[_Call] = deque()
        self._flushing = False
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._last_error = "not connected yet"
        self._greeted = False  # user, password and database are accepted: nobody else's command goes before

    @property
    def connected(self) -> bool:
        """True while commands can be sent."""
        return self._transport is not None and self._greeted

    @property
    def address(self) -> str:
        """Where it connects to, without credentials."""
        return str(self._target.get("path") or f"{self._target.get('host')}:{self._target.get('port', 6379)}")

    async def start(self) -> None:
        """Try to connect once, then keep the connection up in the background without raising."""
        self._loop = asyncio.get_running_loop()
        await self._try_connect()
        self._keeper = asyncio.create_task(self._keep(), name="redis-connection")

    async def close(self) -> None:
        """Close the connection; pending calls fail."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._transport is not None:
            self._transport.abort()
        self._fail("the connection was closed")

    def run(self, commands: Sequence[Sequence[Argument]]) -> asyncio.Future[list[Any]]:
        """Send commands and return a future of their replies, in order.

        The future raises StoreUnavailableError where Redis is unreachable or answers any command with an error.
        """
        if self._transport is not None and self._greeted and commands:
            return self._send(commands)
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._transport is None or not self._greeted:
            future.set_exception(self._unavailable())
        else:
            future.set_result([])
        return future

    def _send(self, commands: Sequence[Sequence[Argument]]) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        pack = hiredis.pack_command
        self._outgoing += [pack(tuple(command)) for command in commands]  # type: ignore[arg-type]
        self._waiting.append(_Call(future, len(commands), self._loop.time()))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    async def call(self, *command: Argument) -> Any:
        """Send one command and return its reply."""
        return (await self.run((command,)))[0]

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start with an empty reply parser."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._reader = hiredis.Reader()
        self._lost.clear()
        self._greeted = False
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Hand each complete reply to the call that waits longest."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while waiting:
            reply = reader.gets()
            if reply is False:  # hiredis says "incomplete" with False; RESP2 has no booleans
                return
            call = waiting[0]
            call.replies.append(reply)
            call.missing -= 1
            if call.missing == 0:
                waiting.popleft()
                self._finish(call)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was pending and let the keeper connect again."""
        dropped, self._transport = (
            self._transport is None,
            None,
        )  # what we dropped ourselves has its reason already
        self._fail(self._last_error if dropped else str(exc) if exc else "Redis closed the connection")
        self._lost.set()

    # inside

    def _flush(self) -> None:
        self._flushing = False
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(b"".join(outgoing))

    def _finish(self, call: _Call) -> None:
        if call.future.done():
            return
        for reply in call.replies:
            if isinstance(reply, hiredis.HiredisError):
                call.future.set_exception(StoreUnavailableError(f"Redis at {self.address} answered: {reply}"))
                return
        call.future.set_result(call.replies)

    def _unavailable(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"Redis at {self.address} cannot be reached ({self._last_error}).")

    def _fail(self, reason: str) -> None:
        self._last_error = reason
        self._outgoing.clear()
        while self._waiting:
            call = self._waiting.popleft()
            if not call.future.done():
                call.future.set_exception(self._unavailable())

    async def _try_connect(self) -> bool:
        target = self._target
        kind = target.get("connection_class")
        try:
            async with asyncio.timeout(self._timeout):
                if kind is UnixDomainSocketConnection:
                    await self._loop.create_unix_connection(lambda: self, target["path"])
                else:
                    context = (self._context or ssl.create_default_context()) if kind is SSLConnection else None
                    host, port = target.get("host", "localhost"), target.get("port", 6379)
                    await self._loop.create_connection(lambda: self, host, port, ssl=context)
                hello: list[tuple[Argument, ...]] = []
                if target.get("password"):
                    hello.append(("AUTH", *filter(None, (target.get("username"),)), target["password"]))
                if target.get("db"):
                    hello.append(("SELECT", target["db"]))
                await self._send([*hello, ("PING",)])
                self._greeted = True
        except (OSError, TimeoutError, StoreUnavailableError) as error:
            self._last_error = str(error) or type(error).__name__
            if self._transport is not None:
                self._transport.abort()
                self._transport = None
            return False
        return True

    async def _keep(self) -> None:
        """Reconnect with backoff, and drop a connection whose oldest reply is overdue."""
        pause = 0.1
        while True:
            if self._transport is None:
                if await self._try_connect():
                    pause = 0.1
                    continue
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            oldest = self._waiting[0].sent_at if self._waiting else None
            if oldest is not None and self._loop.time() - oldest > self._timeout:
                self._transport.abort()
                self._transport = None
                self._fail(f"no answer within {self._timeout:g} s")
                continue
            try:
                async with asyncio.timeout(self._timeout / 4):
                    await self._lost.wait()
            except TimeoutError:
                continue
            self._lost.clear()


def now_ms() -> int:
    """The wall clock in milliseconds since epoch."""
    return time.time_ns() // 1_000_000
