"""The asynchronous client: the same questions as `DealerIQ`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx

from dealeriq.client.core import (
    At,
    Call,
    Conversation,
    Entity,
    RetryPolicy,
    features_call,
    health_call,
    many_call,
    plan_call,
    search_call,
)
from dealeriq.client.types import FeatureRow, Health, Plan, SearchAnswer

__all__ = ["AsyncDealerIQ"]

T = TypeVar("T")


class AsyncDealerIQ:
    """Reads real-time features of dealers from an event loop; arguments and errors are those of `DealerIQ`.

    >>> from dealeriq.client import AsyncDealerIQ
    >>> async def main() -> None:
    ...     async with AsyncDealerIQ("http://127.0.0.1:8000") as dealeriq:
    ...         rows = await dealeriq.features_many(["364", "367"])
    ...         print([row["dealer_orders:amount_sum_7d"] for row in rows])
    >>> import asyncio; asyncio.run(main())                           # doctest: +SKIP
    [18233.75, 40109.12]
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        timeout: float = 5.0,
        retry: RetryPolicy = RetryPolicy(),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout, headers=headers, transport=transport)
        self._base_url, self._retry = base_url, retry

    async def features(
        self, dealer_id: str | Entity, service: str = "dealer", *, at: At | None = None, detail: bool = False
    ) -> FeatureRow:
        """Return the features of one dealer, or of one entity given as a mapping of its keys."""
        return await self._send(features_call(service, dealer_id, at, detail))

    async def features_many(
        self,
        entities: Sequence[str | Entity],
        service: str | None = None,
        *,
        features: Sequence[str] | None = None,
        views: Sequence[str] | None = None,
        at: At | None = None,
        detail: bool = False,
    ) -> list[FeatureRow]:
        """Return one row per entity, in order, from one request."""
        return await self._send(many_call(entities, service, features, views, at, detail))

    async def search(
        self,
        text: str | None = None,
        *,
        like: str | None = None,
        dealer_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 10,
        correct: bool = True,
    ) -> SearchAnswer:
        """Return the products and documents that a text means, or that are like a thing, or both."""
        return await self._send(search_call(text, like, dealer_id, filters, limit, correct))

    async def plan(self) -> Plan:
        """Return the feature services and views that can be asked for."""
        return await self._send(plan_call())

    async def health(self) -> Health:
        """Return whether the service is ready, and what each of its checks found."""
        return await self._send(health_call())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncDealerIQ:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: Call[T]) -> T:
        conversation = Conversation(call, self._retry, self._base_url)
        while True:
            try:
                response = await self._http.request(call.method, call.path, params=call.params, json=call.json)
            except httpx.TransportError as error:
                pause: float | None = conversation.failed(error)
            else:
                pause = conversation.answered(response)
            if pause is None:
                return conversation.result
            await asyncio.sleep(pause)
