"""What both clients share: a question becomes a request, an answer a value, a failure a retry or an error.

Nothing here does input or output: `Call` is data, and `Conversation` decides from what happened what is next.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from dealeriq.client.errors import (
    ConnectionFailedError,
    DealerIQClientError,
    ServiceError,
    TimedOutError,
    from_problem,
)
from dealeriq.client.types import (
    BoughtTogether,
    Compatible,
    FeatureRow,
    Health,
    InsightPage,
    Plan,
    Prices,
    Recommendations,
    SearchAnswer,
    SimilarDealers,
)

__all__ = [
    "Call",
    "Conversation",
    "RetryPolicy",
    "bought_together_call",
    "compatible_call",
    "features_call",
    "health_call",
    "insights_call",
    "many_call",
    "plan_call",
    "prices_call",
    "recommendations_call",
    "search_call",
    "similar_dealers_call",
]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Entity = Mapping[str, str | int]
At = int | datetime | str


@dataclass(frozen=True)
class RetryPolicy:
    """Up to `attempts` tries; pauses grow from `first_s` to at most `longest_s`, with jitter."""

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 2.0

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1); the service's own wish goes first."""
        if retry_after is not None:
            return min(retry_after, self.longest_s)
        return float(min(self.longest_s, self.first_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))


@dataclass(frozen=True)
class Call(Generic[T]):
    """One question: the request and how to read its answer. Reading may be repeated."""

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    accepts: tuple[int, ...] = (200,)


class Conversation(Generic[T]):
    """The tries of one call. Give it what happened; it returns the pause before the next try, or ends.

    After `answered` or `failed` returned None, `result` holds the value.
    """

    def __init__(self, call: Call[T], policy: RetryPolicy, base_url: str) -> None:
        self._call, self._policy, self._base_url = call, policy, base_url
        self._attempt = 0
        self.result: T

    def answered(self, response: httpx.Response) -> float | None:
        """Take an answer: None when done, else seconds to wait; raises DealerIQClientError."""
        self._attempt += 1
        try:
            body = json.loads(response.content) if response.content else None
        except ValueError:
            body = None
        if response.status_code in self._call.accepts:
            try:
                self.result = self._call.read(body)
            except (ValidationError, KeyError, TypeError) as error:
                raise ServiceError(
                    f"{self._base_url} answered something that is not DealerIQ's: {error}",
                    status=response.status_code,
                    remedy="Check base_url, and that client and service are of the same major version.",
                ) from error
            return None
        problem = body if isinstance(body, dict) else {}
        retry_after = _seconds(response.headers.get("retry-after"))
        if response.status_code in (429, 502, 503, 504) and self._attempt < self._policy.attempts:
            return self._policy.pause(self._attempt, retry_after)
        raise from_problem(response.status_code, problem, retry_after)

    def failed(self, error: httpx.TransportError) -> float:
        """Take a transport failure: seconds to wait before another try; raises when the tries are used up."""
        self._attempt += 1
        if self._attempt < self._policy.attempts:
            return self._policy.pause(self._attempt, None)
        kind: type[DealerIQClientError] = (
            TimedOutError if isinstance(error, httpx.TimeoutException) else ConnectionFailedError
        )
        raise kind(
            f"{self._base_url} was not reached in {self._attempt} tries: {error or type(error).__name__}",
            remedy="Check the address, and that the service runs (`dealeriq serve`).",
        ) from error


def features_call(service: str, entity: str | Entity, at: At | None, detail: bool) -> Call[FeatureRow]:
    """Ask for one entity's features of a feature service or view."""
    params = {**{name: str(value) for name, value in _keys(entity).items()}, **_at(at)}
    if detail:
        params["detail"] = "true"
    return Call("GET", f"/v1/features/{quote(service, safe='')}", FeatureRow.model_validate, params)


def many_call(
    entities: Sequence[str | Entity],
    service: str | None,
    features: Sequence[str] | None,
    views: Sequence[str] | None,
    at: At | None,
    detail: bool,
) -> Call[list[FeatureRow]]:
    """Ask for many entities in one request; of the service "dealer" where nothing is chosen."""
    if service is None and features is None and views is None:
        service = "dealer"
    body: dict[str, Any] = {"entities": [dict(_keys(entity)) for entity in entities], **_at(at)}
    for name, value in (("service", service), ("features", features), ("views", views)):
        if value is not None:
            body[name] = value if isinstance(value, str) else list(value)
    if detail:
        body["detail"] = True

    def read(answer: Any) -> list[FeatureRow]:
        return [FeatureRow.model_validate({"at": answer["at"], **row}) for row in answer["results"]]

    return Call("POST", "/v1/features", read, json=body)


def search_call(
    text: str | None,
    like: str | None,
    image: bytes | None,
    kinds: Sequence[str] | None,
    dealer_id: str | None,
    filters: Mapping[str, Any] | None,
    limit: int,
    correct: bool,
) -> Call[SearchAnswer]:
    """Search for products and documents."""
    body: dict[str, Any] = {"limit": limit}
    for name, value in (("text", text), ("like", like), ("dealer_id", dealer_id), ("filters", filters)):
        if value is not None:
            body[name] = dict(value) if isinstance(value, Mapping) else value
    if image is not None:
        body["image"] = base64.b64encode(image).decode()
    if kinds is not None:
        body["kinds"] = list(kinds)
    if not correct:
        body["correct"] = False
    return Call("POST", "/v1/search", SearchAnswer.model_validate, json=body)


def plan_call() -> Call[Plan]:
    """Ask what can be asked for."""
    return Call("GET", "/v1/plan", Plan.model_validate)


def insights_call(dealer_id: str, since: str | None, before: str | None, limit: int) -> Call[InsightPage]:
    """Ask for a page of a dealer's insights."""
    params = {
        name: str(value)
        for name, value in (("since", since), ("before", before), ("limit", limit))
        if value is not None
    }
    return Call("GET", f"/v1/dealers/{quote(dealer_id, safe='')}/insights", InsightPage.model_validate, params)


def recommendations_call(dealer_id: str, limit: int, category: str | None) -> Call[Recommendations]:
    """Ask what a dealer is recommended."""
    params = {"limit": str(limit)} | ({} if category is None else {"category": category})
    path = f"/v1/recommendations/{quote(dealer_id, safe='')}"
    return Call("GET", path, Recommendations.model_validate, params)


def prices_call(dealer_id: str, margin: float | None, most: float) -> Call[Prices]:
    """Ask which price changes are worth it to a dealer."""
    params = {"most": str(most)} | ({} if margin is None else {"margin": str(margin)})
    return Call("GET", f"/v1/dealers/{quote(dealer_id, safe='')}/prices", Prices.model_validate, params)


def bought_together_call(product_id: str, limit: int) -> Call[BoughtTogether]:
    """Ask what a product is bought with."""
    return _graph_call(f"/v1/products/{quote(product_id, safe='')}/bought-together", limit, BoughtTogether)


def compatible_call(product_id: str, limit: int) -> Call[Compatible]:
    """Ask what can stand in for a product."""
    return _graph_call(f"/v1/products/{quote(product_id, safe='')}/compatible", limit, Compatible)


def similar_dealers_call(dealer_id: str, limit: int) -> Call[SimilarDealers]:
    """Ask which dealers are like one."""
    return _graph_call(f"/v1/dealers/{quote(dealer_id, safe='')}/similar", limit, SimilarDealers)


def _graph_call(path: str, limit: int, answer: type[M]) -> Call[M]:
    return Call("GET", path, answer.model_validate, {"limit": str(limit)})


def health_call() -> Call[Health]:
    """Ask whether the service is ready; 503 is an answer here, not an error."""
    return Call("GET", "/readyz", Health.model_validate, accepts=(200, 503))


def _keys(entity: str | Entity) -> Entity:
    return {"dealer_id": entity} if isinstance(entity, str) else entity


def _at(at: At | None) -> dict[str, str]:
    if at is None:
        return {}
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(
                f"at={at.isoformat()} has no time zone; give an aware datetime, e.g. datetime.now(UTC)"
            )
        return {"at": str(int(at.timestamp() * 1000))}
    return {"at": str(at)}


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
