"""The handlers: one method an address, from a parsed request to the bytes of the answer."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from dealeriq.http.graph import GraphSource, Question
from dealeriq.http.insights import InsightSource, cursor_of, limit_of
from dealeriq.http.multiplex import StoreUnavailableError
from dealeriq.http.openapi import document
from dealeriq.http.prices import PriceSource
from dealeriq.http.problems import KINDS, ProblemError, nearest
from dealeriq.http.recommendations import RecommendationSource
from dealeriq.http.routes import MANY_BODY, ROUTES
from dealeriq.http.selection import Selection, parse_time
from dealeriq.http.settings import HttpSettings
from dealeriq.http.source import FeatureSource
from streams.metrics import CONTENT_TYPE, exposition

__all__ = ["Answer", "Handlers", "Request", "StreamAnswer"]

CLOCK_PERIOD_S = 0.2


@dataclass(slots=True)
class Request:
    """What a handler sees: path parameters in order, and the rest unparsed until asked for."""

    parameters: list[str]
    query_string: bytes
    headers: Sequence[tuple[bytes, bytes]]
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]]

    def query(self) -> dict[str, str]:
        """The query parameters; one given twice is a malformed request."""
        if not self.query_string:
            return {}
        pairs = parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True)
        query = dict(pairs)
        if len(query) != len(pairs):
            raise ProblemError("malformed-request", "A query parameter is given twice.")
        return query

    async def body(self, most_bytes: int) -> bytes:
        """The whole body; a `too-large` problem past `most_bytes`, without reading the rest."""
        chunks, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ProblemError("malformed-request", "The body ended early.")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > most_bytes:
                raise ProblemError(
                    "too-large",
                    f"The body is larger than {most_bytes} bytes (setting http.max_body_bytes).",
                    headers=[(b"connection", b"close")],
                )
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)


@dataclass(slots=True)
class Answer:
    """The bytes to send and how to label them."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


Forward = Callable[[str, str, Request], Awaitable[Answer]]
"""Method, path and request, passed on to another process."""


@dataclass(slots=True)
class StreamAnswer:
    """An answer without an end: pieces are sent as they come, until the client goes or the iterator ends."""

    pieces: AsyncIterator[bytes]
    content_type: bytes = b"text/event-stream"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class Handlers:
    """Answers by name of the route table. `stopping` says that the service is about to end."""

    def __init__(
        self,
        settings: HttpSettings,
        source: FeatureSource,
        forward: Forward | None = None,
        insights: InsightSource | None = None,
        stopping: Callable[[], bool] = lambda: False,
        recommendations: RecommendationSource | None = None,
        graph: GraphSource | None = None,
        prices: PriceSource | None = None,
    ) -> None:
        self._insights, self._stopping, self._recommendations = insights, stopping, recommendations
        self._graph, self._prices = graph, prices
        self._settings, self._source, self._catalogue = settings, source, source.catalogue
        self._forward = forward
        self._event_clock: int | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._plan = orjson.dumps(self._catalogue.describe())
        self._openapi = orjson.dumps(document())

    async def start(self) -> None:
        """Begin to follow the event clock, where the settings ask for it."""
        if self._settings.clock == "event":
            await self._tick()
            self._ticker = asyncio.create_task(self._follow_clock(), name="event-clock")

    async def close(self) -> None:
        """Stop following the clock."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    async def features(self, request: Request) -> Answer:
        """One entity, its keys in the path."""
        selection = self._catalogue.named(unquote(request.parameters[0]))
        values = [unquote(value) if "%" in value else value for value in request.parameters[1].split(",")]
        return await self._one(selection, selection.entity_of_path(values), request.query())

    async def features_by_query(self, request: Request) -> Answer:
        """One entity, its keys in the query."""
        selection = self._catalogue.named(request.parameters[0])
        query = request.query()
        options: dict[str, str] = {name: query.pop(name) for name in ("at", "detail") if name in query}
        return await self._one(selection, selection.entity(query, "The query"), options)

    async def dealer(self, request: Request) -> Answer:
        """One dealer, of the service `dealer`."""
        selection = self._catalogue.named("dealer")
        return await self._one(selection, selection.entity_of_path(request.parameters), request.query())

    async def features_many(self, request: Request) -> Answer:
        """Many entities, chosen features."""
        raw = await request.body(self._settings.max_body_bytes)
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ProblemError("malformed-request", f"The body is not JSON: {error}.") from None
        if not isinstance(body, dict):
            raise ProblemError("malformed-request", f"The body must be an object, not {type(body).__name__}.")
        for name in body:
            if name not in MANY_BODY["properties"]:
                known = nearest(name, MANY_BODY["properties"])
                raise ProblemError("malformed-request", f"The body has an unknown member {name!r}. {known}")
        selection = self._choose(body)
        entities = body.get("entities")
        if not isinstance(entities, list) or not all(isinstance(each, dict) for each in entities):
            raise ProblemError("malformed-request", "entities must be a list of objects.")
        if len(entities) > self._settings.max_entities:
            raise ProblemError(
                "too-large",
                f"{len(entities)} entities; at most {self._settings.max_entities} (setting http.max_entities).",
            )
        checked = [selection.entity(each, f"entities[{i}]") for i, each in enumerate(entities)]
        at_ms, detail = self._moment(body.get("at")), _flag(body.get("detail", False))
        rows = await self._source.rows(selection, checked, at_ms, detail)
        results = b",".join(
            b'{"entity":%b,%b}' % (orjson.dumps(entity), row) for entity, row in zip(checked, rows, strict=True)
        )
        return Answer(b'{"at":%d,"results":[%b]}' % (at_ms, results))

    async def search(self, request: Request) -> Answer:
        """A search of query parameters, by the search process."""
        return await self._searched("GET", request)

    async def search_body(self, request: Request) -> Answer:
        """A search of a body, by the search process."""
        return await self._searched("POST", request)

    async def insights(self, request: Request) -> Answer:
        """A page of a dealer's insights."""
        query = request.query()
        for name in query:
            if name not in ("since", "before", "limit"):
                raise ProblemError("malformed-request", f"The query has an unknown parameter {name!r}.")
        since, before = (cursor_of(n, query[n]) if n in query else None for n in ("since", "before"))
        page = await self._source_of_insights().page(
            request.parameters[0], since, before, limit_of(query.get("limit", "50"))
        )
        return Answer(page)

    async def bought_together(self, request: Request) -> Answer:
        """Products that are bought with one."""
        return await self._asked("bought_together", request)

    async def compatible(self, request: Request) -> Answer:
        """Products that can stand in for one."""
        return await self._asked("compatible", request)

    async def similar_dealers(self, request: Request) -> Answer:
        """Dealers like one."""
        return await self._asked("similar_dealers", request)

    async def insights_stream(self, request: Request) -> StreamAnswer:
        """A dealer's insights as they come."""
        query = request.query()
        for name in query:
            if name != "since":
                raise ProblemError("malformed-request", f"The query has an unknown parameter {name!r}.")
        last = next((value for key, value in request.headers if key == b"last-event-id"), None)
        since = None
        if last is not None:
            since = cursor_of("Last-Event-ID", last.decode("latin-1"))
        elif "since" in query:
            since = cursor_of("since", query["since"])
        source, dealer = self._source_of_insights(), request.parameters[0]
        headers = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        return StreamAnswer(source.events(dealer, since, self._stopping), headers=headers)

    async def recommendations(self, request: Request) -> Answer:
        """What a dealer is recommended."""
        if self._recommendations is None:
            raise ProblemError("not-found", "This service reads no recommendations.")
        return Answer(await self._recommendations.answer(request.parameters[0], request.query()))

    async def prices(self, request: Request) -> Answer:
        """Which price changes are worth it to a dealer."""
        if self._prices is None:
            raise ProblemError("not-found", "This service reads no prices.")
        found = await self._prices.answer(request.parameters[0], request.query(), self._moment(None))
        return Answer(found)

    async def plan(self, request: Request) -> Answer:
        """The plan."""
        return Answer(self._plan)

    async def healthz(self, request: Request) -> Answer:
        """The process answers."""
        return Answer(b'{"alive":true}')

    async def readyz(self, request: Request) -> Answer:
        """Store reachable and plan loaded make ready; positions and the clock are told beside it."""
        checks: dict[str, Any] = {"plan": {"views": len(self._catalogue.plan.views)}}
        ready = True
        try:
            checks["store"] = await self._source.facts()
            positions = await self._source.positions()
            checks["positions"] = {"known": bool(positions), "views": positions}
            event_ms = await self._source.event_time_ms()
            checks["clock"] = {"kind": self._settings.clock, "now": self._moment(None), "event_time": event_ms}
        except StoreUnavailableError as error:
            ready = False
            checks["store"] = {"reachable": False, "detail": str(error), "remedy": error.remedy}
        body = orjson.dumps({"ready": ready, "checks": checks})
        return Answer(body) if ready else Answer(body, 503, headers=[(b"retry-after", b"1")])

    async def openapi(self, request: Request) -> Answer:
        """The OpenAPI document."""
        return Answer(self._openapi)

    async def metrics(self, request: Request) -> Answer:
        """Prometheus text."""
        return Answer(exposition(), content_type=CONTENT_TYPE.encode())

    async def problem(self, request: Request) -> Answer:
        """What a kind of problem means."""
        kind = KINDS.get(request.parameters[0])
        if kind is None:
            raise ProblemError("not-found", f"No such problem. {nearest(request.parameters[0], KINDS)}")
        return Answer(
            orjson.dumps(
                {
                    "type": f"/problems/{kind.slug}",
                    "status": kind.status,
                    "title": kind.title,
                    "remedy": kind.remedy,
                }
            )
        )

    async def page(self, request: Request) -> Answer:
        """The addresses, for people."""
        rows = "".join(
            f"<tr><td>{route.method}<td><a href='{html.escape(route.path)}'>{html.escape(route.path)}</a>"
            f"<td>{html.escape(route.summary)}"
            for route in ROUTES
        )
        views = ", ".join(html.escape(name) for name in self._catalogue.plan.views)
        text = (
            "<!doctype html><html lang=en><meta charset=utf-8><title>DealerIQ</title>"
            "<style>body{font:16px system-ui;margin:2rem auto;max-width:60rem}td{padding:.2rem .8rem}</style>"
            f"<h1>DealerIQ</h1><p>Feature views: {views}.<table>{rows}</table></html>"
        )
        return Answer(text.encode(), content_type=b"text/html; charset=utf-8")

    async def _searched(self, method: str, request: Request) -> Answer:
        if self._forward is None:
            raise ProblemError("search-unavailable", "No search process is running.")
        return await self._forward(method, "/v1/search", request)

    async def _one(self, selection: Selection, entity: dict[str, str | int], options: dict[str, str]) -> Answer:
        for name in options:
            if name not in ("at", "detail"):
                known = nearest(name, ("at", "detail"))
                raise ProblemError("malformed-request", f"Unknown query parameter {name!r}. {known}")
        at_ms, detail = self._moment(options.get("at")), _flag(options.get("detail", False))
        (row,) = await self._source.rows(selection, (entity,), at_ms, detail)
        return Answer(b'{"entity":%b,"at":%d,%b}' % (orjson.dumps(entity), at_ms, row))

    async def _asked(self, question: Question, request: Request) -> Answer:
        if self._graph is None:
            raise ProblemError("graph-unavailable", "This service asks no graph.")
        return Answer(await self._graph.ask(question, request.parameters[0], request.query()))

    def _source_of_insights(self) -> InsightSource:
        if self._insights is None:
            raise ProblemError("not-found", "This service reads no insights.")
        return self._insights

    def _choose(self, body: dict[str, Any]) -> Selection:
        given = [name for name in ("service", "views", "features") if name in body]
        if len(given) != 1:
            raise ProblemError(
                "malformed-request",
                f"The body gives {' and '.join(given) or 'nothing to read'}; give service, views or features.",
            )
        value = body[given[0]]
        if given[0] == "service":
            if not isinstance(value, str):
                raise ProblemError("malformed-request", "service must be a string.")
            return self._catalogue.named(value)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise ProblemError("malformed-request", f"{given[0]} must be a list of one or more strings.")
        return self._catalogue.of_views(value) if given[0] == "views" else self._catalogue.of_features(value)

    def _moment(self, given: object) -> int:
        if given is not None:
            if not isinstance(given, str | int) or isinstance(given, bool):
                raise ProblemError("malformed-request", "at must be a string or an integer.")
            return parse_time(given)
        if self._event_clock is not None:
            return self._event_clock
        return time.time_ns() // 1_000_000

    async def _follow_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_PERIOD_S)
            await self._tick()

    async def _tick(self) -> None:
        try:
            latest = await self._source.event_time_ms()
        except StoreUnavailableError:
            return  # the last known time stays; reads themselves answer 503
        if latest is not None:
            self._event_clock = latest


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "1", ""):
        return True
    if value in ("false", "0"):
        return False
    raise ProblemError("malformed-request", f"detail={value!r} is neither true nor false.")
