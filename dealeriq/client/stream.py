"""A stream of server-sent events that survives its connection: what to ask for, what came, when to ask again.

Like `Conversation` it does no input or output, so both clients share it. Format: WHATWG HTML, section 9.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from dealeriq.client.core import RetryPolicy
from dealeriq.client.errors import ConnectionFailedError, ServiceError, TimedOutError, from_problem
from dealeriq.client.types import Insight

__all__ = ["InsightStream"]

_SILENCE_S = 45.0  # the service says something at least every 15 s


class InsightStream:
    """The insights of one dealer after `since`; give it lines and failures, ask it for the next request.

    `since` is a cursor: "-1" is before all that are kept, None is now.
    """

    def __init__(self, dealer_id: str, since: str | None, policy: RetryPolicy, base_url: str) -> None:
        self.path = f"/v1/dealers/{quote(dealer_id, safe='')}/insights/stream"
        self.timeout = httpx.Timeout(policy.longest_s + 5.0, read=_SILENCE_S)
        self._cursor, self._policy, self._base_url = since, policy, base_url
        self._failures = 0
        self._data: list[str] = []
        self._came: str | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the next request: it resumes after the last insight that was given."""
        accept = {"accept": "text/event-stream"}
        return accept if self._cursor is None else {**accept, "last-event-id": self._cursor}

    def line(self, text: str) -> Insight | None:
        """Take a line; return the insight that it completes. Raises ServiceError."""
        self._failures = 0  # whoever says anything at all is there
        if text:
            name, _, value = text.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            elif name == "id":
                self._came = value.removeprefix(" ")
            return None
        if self._came is not None:  # counts with the whole event, which a lost connection may have cut
            self._cursor, self._came = self._came, None
        if not self._data:
            return None
        data, self._data = "\n".join(self._data), []
        try:
            found = Insight.model_validate_json(data)
        except ValidationError as error:
            raise ServiceError(
                f"{self._base_url} sent something that is no insight: {error}",
                remedy="Check that client and service are of the same major version.",
            ) from error
        return found

    def refused(self, status: int, body: bytes) -> float:
        """Take an answer that is an error: seconds to wait before another try; raises DealerIQClientError."""
        try:
            problem = json.loads(body)
        except ValueError:
            problem = {}
        self._failures += 1
        if status in (429, 502, 503, 504) and self._failures < self._policy.attempts:
            return self._policy.pause(self._failures, None)
        raise from_problem(status, problem if isinstance(problem, dict) else {}, None)

    def broken(self, error: httpx.TransportError | None) -> float:
        """Take the end of a connection, or a failure: seconds to wait; raises when the tries are used up."""
        self._data, self._came = [], None
        self._failures += 1
        if self._failures < self._policy.attempts:
            return self._policy.pause(self._failures, None)
        kind = TimedOutError if isinstance(error, httpx.TimeoutException) else ConnectionFailedError
        raise kind(
            f"{self._base_url} was not reached in {self._failures} tries: {error or 'the stream ended'}",
            remedy="Check the address, and that the service runs (`dealeriq serve`).",
        ) from error
