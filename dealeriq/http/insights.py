"""Insights over HTTP: a page of a dealer's, and a stream of them that resumes after the last seen.

The cursor of an insight is its offset in its topic: it never changes, and orders a dealer's insights as they
were committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from dealeriq.http.multiplex import MultiplexedRedis, StoreUnavailableError
from dealeriq.http.problems import ProblemError
from streams.insights.store import entry_id, stream_key

__all__ = ["OLDEST", "InsightSource", "cursor_of", "limit_of"]

OLDEST = -1
"""The cursor before every insight."""

_LOOK_S = 0.1
_SILENT_S = 15.0  # proxies close a connection on which nothing comes
_BATCH = 200
_MOST = 1_000


class InsightSource:
    """Reads what the insight view wrote, over the connection that the features are read on."""

    def __init__(self, redis: MultiplexedRedis, project: str) -> None:
        self._redis, self._project = redis, project

    async def page(self, dealer_id: str, since: int | None, before: int | None, limit: int) -> bytes:
        """Return a page as JSON: the newest first, or after `since` the oldest first.

        Raises StoreUnavailableError.
        """
        key = stream_key(self._project, dealer_id)
        if since is not None:
            start = "-" if since == OLDEST else f"({entry_id(since)}"
            end = "+" if before is None else f"({entry_id(before)}"
            command: tuple[Any, ...] = ("XRANGE", key, start, end, "COUNT", limit + 1)
        else:
            end = "+" if before is None else f"({entry_id(before)}"
            command = ("XREVRANGE", key, end, "-", "COUNT", limit + 1)
        found = await self._redis.call(*command)
        bodies = b",".join(entry[1][1] for entry in found[:limit])
        return b'{"insights":[%b],"more":%b}' % (bodies, b"true" if len(found) > limit else b"false")

    async def events(
        self, dealer_id: str, since: int | None, stopping: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events: what came after `since` (None: after now), then what comes.

        It ends when `stopping` says so. The first event carries the cursor alone. While the store is away it
        waits and goes on after the last one sent.
        """
        key = stream_key(self._project, dealer_id)
        at = since if since is not None else await self._newest(key)
        yield b"retry: 1000\nid: %d\n\n" % at
        spoke = time.monotonic()
        while not stopping():
            start = "-" if at == OLDEST else f"({entry_id(at)}"
            try:
                found = await self._redis.call("XRANGE", key, start, "+", "COUNT", _BATCH)
            except StoreUnavailableError:
                found = []
            for name, fields in found:
                at = int(name.partition(b"-")[0])
                yield b"id: %d\nevent: insight\ndata: %b\n\n" % (at, fields[1])
            if found:
                spoke = time.monotonic()
                continue
            if time.monotonic() - spoke > _SILENT_S:
                yield b": nothing new\n\n"
                spoke = time.monotonic()
            await asyncio.sleep(_LOOK_S)

    async def _newest(self, key: str) -> int:
        found = await self._redis.call("XREVRANGE", key, "+", "-", "COUNT", 1)
        return int(found[0][0].partition(b"-")[0]) if found else OLDEST


def cursor_of(name: str, text: str) -> int:
    """Return the cursor in a query parameter or header. Raises a malformed-request problem."""
    if text == str(OLDEST) or (text.isascii() and text.isdigit() and len(text) < 19):
        return int(text)
    raise ProblemError(
        "malformed-request", f"{name}={text!r} is not the cursor of an insight, nor {OLDEST} for before all."
    )


def limit_of(text: str, most: int = _MOST) -> int:
    """Return how much is asked for, at most `most`. Raises a malformed-request problem."""
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most:
        return int(text)
    raise ProblemError("malformed-request", f"limit={text!r} is not a number from 1 to {most}.")
