"""The asynchronous client: the same questions as `DealerIQ`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx

from dealeriq.client.core import (
    At,
    Call,
    Conversation,
    Entity,
    RetryPolicy,
    bought_together_call,
    compatible_call,
    features_call,
    health_call,
    insights_call,
    many_call,
    plan_call,
    prices_call,
    recommendations_call,
    search_call,
    similar_dealers_call,
)
from dealeriq.client.stream import InsightStream
from dealeriq.client.types import (
    BoughtTogether,
    Compatible,
    FeatureRow,
    Health,
    Insight,
    InsightPage,
    Plan,
    Prices,
    Recommendations,
    SearchAnswer,
    SimilarDealers,
)

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
        image: bytes | None = None,
        kinds: Sequence[str] | None = None,
        dealer_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 10,
        correct: bool = True,
    ) -> SearchAnswer:
        """Return the products and documents that a text means, or that are like a thing, or both."""
        return await self._send(search_call(text, like, image, kinds, dealer_id, filters, limit, correct))

    async def insight_page(
        self, dealer_id: str, *, since: str | None = None, before: str | None = None, limit: int = 50
    ) -> InsightPage:
        """Return a dealer's insights: the newest first, or the oldest first after the cursor `since`.

        `before` is a cursor, too: give that of the last one to get the next page.
        """
        return await self._send(insights_call(dealer_id, since, before, limit))

    async def insights(self, dealer_id: str, *, since: str | None = None) -> AsyncIterator[Insight]:
        """Yield a dealer's insights as they come, each once, without an end.

        `since` is the cursor of the last one seen ("-1": all that are kept, None: from now on). A lost
        connection is made again and goes on after the last one that was given. Raises RequestError,
        UnauthorizedError, and ConnectionFailedError after the tries of `retry` without an answer.
        """
        stream = InsightStream(dealer_id, since, self._retry, self._base_url)
        while True:
            try:
                async with self._http.stream(
                    "GET", stream.path, headers=stream.headers, timeout=stream.timeout
                ) as response:
                    if response.status_code == 200:
                        async for line in response.aiter_lines():
                            if (insight := stream.line(line)) is not None:
                                yield insight
                        pause = stream.broken(None)
                    else:
                        pause = stream.refused(response.status_code, await response.aread())
            except httpx.TransportError as error:
                pause = stream.broken(error)
            await asyncio.sleep(pause)

    async def recommendations(
        self, dealer_id: str, *, limit: int = 20, category: str | None = None
    ) -> Recommendations:
        """Return products that a dealer does not have yet, the best first, each with why."""
        return await self._send(recommendations_call(dealer_id, limit, category))

    async def prices(self, dealer_id: str, *, margin: float | None = None, most: float = 0.2) -> Prices:
        """Return the price elasticities of what a dealer sells, and the changes that earn most."""
        return await self._send(prices_call(dealer_id, margin, most))

    async def bought_together(self, product_id: str, *, limit: int = 10) -> BoughtTogether:
        """Return the products that orders hold with one more often than chance says, the surest first.

        Raises UnknownNameError where the graph has no such product, UnavailableError.
        """
        return await self._send(bought_together_call(product_id, limit))

    async def compatible(self, product_id: str, *, limit: int = 10) -> Compatible:
        """Return products of the same class, those first that most of its own dealers order, too."""
        return await self._send(compatible_call(product_id, limit))

    async def similar_dealers(self, dealer_id: str, *, limit: int = 10) -> SimilarDealers:
        """Return the dealers that order the same products, the most similar first."""
        return await self._send(similar_dealers_call(dealer_id, limit))

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
