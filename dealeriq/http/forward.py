"""Passing a request on to another process of ours, and its answer back, as they are."""

from __future__ import annotations

import httpx

from dealeriq.http.handlers import Answer, Request
from dealeriq.http.problems import ProblemError

__all__ = ["Forwarder"]

_PASSED = (b"authorization", b"content-type")


class Forwarder:
    """Forwards to the search process.

    Args:
        url: base URL of the process; None where there is none.
        timeout_s: longest wait for an answer.
        most_bytes: of a request's body.
    """

    def __init__(self, url: str | None, timeout_s: float, most_bytes: int) -> None:
        self._url, self._most_bytes, self._timeout_s = url, most_bytes, timeout_s
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Make the pool of connections; nothing is sent yet."""
        if self._url is not None:
            self._client = httpx.AsyncClient(base_url=self._url, timeout=self._timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def forward(self, method: str, path: str, request: Request) -> Answer:
        """Return the other process's answer. Raises a `search-unavailable` problem."""
        body = await request.body(self._most_bytes) if method == "POST" else None
        if self._client is None:
            raise ProblemError("search-unavailable", "No search process is running.")
        target = path + (f"?{request.query_string.decode('latin-1')}" if request.query_string else "")
        headers = [(name, value) for name, value in request.headers if name in _PASSED]
        try:
            answer = await self._client.request(method, target, content=body, headers=headers)
        except httpx.TimeoutException:
            raise ProblemError(
                "search-unavailable",
                f"The search process did not answer within {self._timeout_s:g} s.",
                remedy="Try again after Retry-After seconds; search.timeout_s is how long is waited.",
                headers=[(b"retry-after", b"2")],
            ) from None
        except httpx.TransportError:
            raise ProblemError(
                "search-unavailable",
                f"No search process answers at {self._url}.",
                headers=[(b"retry-after", b"1")],
            ) from None
        kept = [(b"retry-after", after.encode())] if (after := answer.headers.get("retry-after")) else []
        return Answer(answer.content, answer.status_code, answer.headers["content-type"].encode(), kept)
