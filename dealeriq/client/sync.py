"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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

__all__ = ["DealerIQ"]

T = TypeVar("T")


class DealerIQ:
    """Reads real-time features of dealers.

    >>> from dealeriq.client import DealerIQ
    >>> with DealerIQ("http://127.0.0.1:8000") as dealeriq:          # doctest: +SKIP
    ...     row = dealeriq.features("364")
    ...     row["dealer_orders:amount_sum_7d"]
    18233.75

    Args:
        base_url: address of the service.
        token: bearer token, where the service asks for one.
        timeout: seconds for connecting and for each answer.
        retry: how often and how patiently connection failures and 503 are tried again.
        transport: an httpx transport, for proxies or tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        timeout: float = 5.0,
        retry: RetryPolicy = RetryPolicy(),
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=headers, transport=transport)
        self._base_url, self._retry = base_url, retry

    def features(
        self, dealer_id: str | Entity, service: str = "dealer", *, at: At | None = None, detail: bool = False
    ) -> FeatureRow:
        """Return the features of one dealer, or of one entity given as a mapping of its keys.

        `at` is the event-time clock: ms since epoch, ISO 8601 or an aware datetime; default: the service's now.
        `detail` adds statuses and event times. Raises UnknownNameError, WrongEntityError, UnavailableError.
        """
        return self._send(features_call(service, dealer_id, at, detail))

    def features_many(
        self,
        entities: Sequence[str | Entity],
        service: str | None = None,
        *,
        features: Sequence[str] | None = None,
        views: Sequence[str] | None = None,
        at: At | None = None,
        detail: bool = False,
    ) -> list[FeatureRow]:
        """Return one row per entity, in order, from one request.

        Choose by one of `service` (default "dealer"), `views`, or `features` as `view:feature` references.
        """
        return self._send(many_call(entities, service, features, views, at, detail))

    def search(
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
        """Return the products and documents that a text means, that are like a thing (`product/ID`), or both.

        `image` is the content of a picture's file. `kinds`: of vectors to search with (text, graph, image);
        None: all that the index has and that what is asked has. On behalf of a `dealer_id` its own documents
        are found too. `filters`: field -> a value, a list of values, or bounds of a number ({"gte": 1,
        "lte": 5}). Raises RequestError, UnavailableError.
        """
        return self._send(search_call(text, like, image, kinds, dealer_id, filters, limit, correct))

    def insight_page(
        self, dealer_id: str, *, since: str | None = None, before: str | None = None, limit: int = 50
    ) -> InsightPage:
        """Return a dealer's insights: the newest first, or the oldest first after the cursor `since`.

        `before` is a cursor, too: give that of the last one to get the next page.
        """
        return self._send(insights_call(dealer_id, since, before, limit))

    def insights(self, dealer_id: str, *, since: str | None = None) -> Iterator[Insight]:
        """Yield a dealer's insights as they come, each once, without an end.

        `since` is the cursor of the last one seen ("-1": all that are kept, None: from now on). A lost
        connection is made again and goes on after the last one that was given. Raises RequestError,
        UnauthorizedError, and ConnectionFailedError after the tries of `retry` without an answer.
        """
        stream = InsightStream(dealer_id, since, self._retry, self._base_url)
        while True:
            try:
                with self._http.stream(
                    "GET", stream.path, headers=stream.headers, timeout=stream.timeout
                ) as response:
                    if response.status_code == 200:
                        for line in response.iter_lines():
                            if (insight := stream.line(line)) is not None:
                                yield insight
                        pause = stream.broken(None)
                    else:
                        pause = stream.refused(response.status_code, response.read())
            except httpx.TransportError as error:
                pause = stream.broken(error)
            time.sleep(pause)

    def recommendations(
        self, dealer_id: str, *, limit: int = 20, category: str | None = None
    ) -> Recommendations:
        """Return products that a dealer does not have yet, the best first, each with why.

        `category` limits them to one. A dealer that never ordered gets what is popular in its region.
        Raises RequestError, UnavailableError.
        """
        return self._send(recommendations_call(dealer_id, limit, category))

    def prices(self, dealer_id: str, *, margin: float | None = None, most: float = 0.2) -> Prices:
        """Return the price elasticities of what a dealer sells, and the changes that earn most.

        `margin` is the gross margin at the usual price, a share: gross profit is maximised, else revenue.
        `most` is the largest change that is advised. Raises RequestError, UnavailableError.
        """
        return self._send(prices_call(dealer_id, margin, most))

    def bought_together(self, product_id: str, *, limit: int = 10) -> BoughtTogether:
        """Return the products that orders hold with one more often than chance says, the surest first.

        Raises UnknownNameError where the graph has no such product, UnavailableError.
        """
        return self._send(bought_together_call(product_id, limit))

    def compatible(self, product_id: str, *, limit: int = 10) -> Compatible:
        """Return products of the same class, those first that most of its own dealers order, too."""
        return self._send(compatible_call(product_id, limit))

    def similar_dealers(self, dealer_id: str, *, limit: int = 10) -> SimilarDealers:
        """Return the dealers that order the same products, the most similar first."""
        return self._send(similar_dealers_call(dealer_id, limit))

    def plan(self) -> Plan:
        """Return the feature services and views that can be asked for."""
        return self._send(plan_call())

    def health(self) -> Health:
        """Return whether the service is ready, and what each of its checks found."""
        return self._send(health_call())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> DealerIQ:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        conversation = Conversation(call, self._retry, self._base_url)
        while True:
            try:
                response = self._http.request(call.method, call.path, params=call.params, json=call.json)
            except httpx.TransportError as error:
                pause: float | None = conversation.failed(error)
            else:
                pause = conversation.answered(response)
            if pause is None:
                return conversation.result
            time.sleep(pause)
