"""What can go wrong, by what the caller can do about it.

DealerIQClientError
├── ConnectionFailedError     the service was not reached; retried already
│   └── TimedOutError         it did not answer in time
├── UnavailableError          the service is up, its store is not; try again after `retry_after` seconds
├── RequestError              the request must change
│   ├── UnauthorizedError     a token is missing or wrong
│   ├── UnknownNameError      no such feature service, view or feature
│   ├── WrongEntityError      the entity's keys do not fit the view
│   └── TooLargeError         split the request
└── ServiceError              a defect in the service, or an answer that is not DealerIQ's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ConnectionFailedError",
    "DealerIQClientError",
    "RequestError",
    "ServiceError",
    "TimedOutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownNameError",
    "WrongEntityError",
    "from_problem",
]


class DealerIQClientError(Exception):
    """The root of every error this client raises.

    `status` is the HTTP status (None where no answer came), `remedy` what to do, `problem` the document.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        remedy: str = "",
        problem: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.remedy, self.retry_after = status, remedy, retry_after
        self.problem: Mapping[str, Any] = problem or {}


class ConnectionFailedError(DealerIQClientError):
    """The service could not be reached, after the retries. Check the address and that it runs."""


class TimedOutError(ConnectionFailedError):
    """No answer within the timeout, after the retries. Raise `timeout` or ask for fewer entities."""


class UnavailableError(DealerIQClientError):
    """The service answers but cannot read its store now. Try again after `retry_after` seconds."""


class RequestError(DealerIQClientError):
    """The request is wrong; sending it again unchanged cannot help."""


class UnauthorizedError(RequestError):
    """The token is missing or wrong: give `token=` to the client."""


class UnknownNameError(RequestError):
    """No feature service, view or feature has this name: see `plan()`."""


class WrongEntityError(RequestError):
    """The entity lacks a key, or has one too many: see the view's `entity` in `plan()`."""


class TooLargeError(RequestError):
    """Too many entities or bytes in one request: split it."""


class ServiceError(DealerIQClientError):
    """A defect in the service, or something else answered at that address."""


_BY_SLUG: Mapping[str, type[DealerIQClientError]] = {
    "malformed-request": RequestError,
    "unauthorized": UnauthorizedError,
    "not-found": RequestError,
    "unknown-service": UnknownNameError,
    "unknown-feature": UnknownNameError,
    "method-not-allowed": RequestError,
    "too-large": TooLargeError,
    "wrong-entity": WrongEntityError,
    "bad-search": RequestError,
    "not-searchable": UnknownNameError,
    "internal": ServiceError,
    "store-unavailable": UnavailableError,
    "search-unavailable": UnavailableError,
    "not-in-graph": UnknownNameError,
    "graph-unavailable": UnavailableError,
}


def from_problem(status: int, problem: Mapping[str, Any], retry_after: float | None) -> DealerIQClientError:
    """The error that a problem document stands for; an unknown type falls back on its status."""
    slug = str(problem.get("type", "")).rpartition("/")[2]
    fallback = UnavailableError if status == 503 else RequestError if 400 <= status < 500 else ServiceError
    message = str(problem.get("detail") or problem.get("title") or f"The service answered {status}.")
    return _BY_SLUG.get(slug, fallback)(
        message, status=status, remedy=str(problem.get("remedy", "")), problem=problem, retry_after=retry_after
    )
