"""The HTTP service: a bare ASGI application, because a framework's routing costs more than a read does.

The route table in `routes.py` is the only list of addresses: dispatch, OpenAPI and the page at `/` follow.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote

from connectors.log import get_logger
from dealeriq.http.forward import Forwarder
from dealeriq.http.graph import GraphSource
from dealeriq.http.handlers import Answer, Handlers, Request, StreamAnswer
from dealeriq.http.insights import InsightSource
from dealeriq.http.multiplex import StoreUnavailableError
from dealeriq.http.prices import PriceSource
from dealeriq.http.problems import ProblemError, nearest
from dealeriq.http.recommendations import RecommendationSource
from dealeriq.http.routes import ROUTES, Route
from dealeriq.http.settings import HttpSettings
from dealeriq.http.source import FeatureSource
from streams.metrics import DURATION_BUCKETS, REGISTRY, BatchHistogram, StageMeters

__all__ = ["Application", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DURATION = BatchHistogram(
    "dealeriq_http_request_seconds", "Seconds to answer a request", "route", DURATION_BUCKETS, REGISTRY
)
JSON, PROBLEM = b"application/json", b"application/problem+json"
log = get_logger("dealeriq.http")


class Application:
    """One process's service; give it to uvicorn."""

    def __init__(
        self,
        settings: HttpSettings,
        source: FeatureSource,
        *,
        search: Forwarder | None = None,
        insights: InsightSource | None = None,
        stopping: Callable[[], bool] = lambda: False,
        recommendations: RecommendationSource | None = None,
        graph: GraphSource | None = None,
        prices: PriceSource | None = None,
    ) -> None:
        self._settings, self._source, self._search, self._graph = settings, source, search, graph
        forward = None if search is None else search.forward
        self._handlers = Handlers(settings, source, forward, insights, stopping, recommendations, graph, prices)
        self._meters = StageMeters("http")
        # (number of segments, the fixed first two) leaves one pattern to try, or a few that end otherwise.
        self._table: dict[tuple[int, str, str], dict[tuple[str, ...], dict[str, Route]]] = {}
        for route in ROUTES:
            patterns = self._table.setdefault(_signature(route.segments), {})
            patterns.setdefault(_fixed(route.segments), {})[route.method] = route
        self._token = settings.token.get_secret_value().encode() if settings.token else None
        self._origins = frozenset(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection event (ASGI 3)."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        name = "none"
        try:
            method: str = scope["method"]
            segments = scope["raw_path"].partition(b"?")[0].decode("latin-1").split("/")[1:]
            methods = self._methods(segments)
            if methods is None:
                raise self._nowhere(scope["path"])
            if method == "OPTIONS":
                answer = Answer(b"", 204, headers=[(b"allow", _allow(methods))])
            else:
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    raise ProblemError(
                        "method-not-allowed",
                        f"{method} is not allowed at {scope['path']}.",
                        headers=[(b"allow", _allow(methods))],
                    )
                name = route.name
                if self._token is not None and route.guarded:
                    self._authorize(scope)
                parameters = [
                    unquote(given) if "%" in given and not route.keeps_raw else given
                    for given, fixed in zip(segments, route.segments, strict=True)
                    if fixed[:1] == "{"
                ]
                request = Request(parameters, scope["query_string"], scope["headers"], receive)
                answer = await getattr(self._handlers, route.handler)(request)
                if isinstance(answer, StreamAnswer):
                    await self._stream(answer, scope, receive, send)
                    self._meters.count("ok")
                    return
        except ProblemError as problem:
            answer = _problem(problem, scope)
        except StoreUnavailableError as error:
            self._meters.error(error)
            answer = _problem(
                ProblemError("store-unavailable", str(error), headers=[(b"retry-after", b"1")]), scope
            )
        except Exception as error:
            self._meters.error(error)
            log.exception("request failed", method=scope.get("method"), path=scope.get("path"))
            answer = _problem(ProblemError("internal", f"{type(error).__name__} in the service."), scope)
        body = answer.body
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(body)).encode()),
            *answer.headers,
        ]
        if self._origins:
            headers += self._cors(scope)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self._meters.count("ok" if answer.status < 400 else "refused" if answer.status < 500 else "failed")
        DURATION.observe_repeated(name, time.perf_counter() - started, 1)

    async def _stream(self, answer: StreamAnswer, scope: Scope, receive: Receive, send: Send) -> None:
        """Send pieces until there are no more, or the client has gone.

        The first is asked for before the headers go out: a store that is away is a problem, not a stream.
        """
        pieces = answer.pieces
        first = await anext(pieces, b"")
        headers = [(b"content-type", answer.content_type), *answer.headers, *self._cors(scope)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(_gone(receive))
        waiting: asyncio.Future[bytes] | None = None
        try:
            piece = first
            while scope["method"] != "HEAD" and not gone.done():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                waiting = asyncio.ensure_future(anext(pieces, b""))
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done() or not (piece := waiting.result()):
                    break
        finally:
            gone.cancel()
            if waiting is not None and not waiting.done():
                waiting.cancel()
            await asyncio.gather(gone, *([waiting] if waiting else []), return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._source.start()
                await self._handlers.start()
                if self._search is not None:
                    await self._search.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._search is not None:
                    await self._search.close()
                if self._graph is not None:
                    await self._graph.close()
                await self._handlers.close()
                await self._source.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _authorize(self, scope: Scope) -> None:
        assert self._token is not None
        given = _header(scope, b"authorization")
        if given is None or not hmac.compare_digest(given, b"Bearer " + self._token):
            detail = "The request carries no token." if given is None else "The token is not the right one."
            raise ProblemError("unauthorized", detail, headers=[(b"www-authenticate", b"Bearer")])

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        origin = _header(scope, b"origin")
        if origin is None or not ("*" in self._origins or origin.decode("latin-1") in self._origins):
            return []
        headers = [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS":
            headers += [
                (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
                (b"access-control-allow-headers", b"authorization, content-type"),
                (b"access-control-max-age", b"600"),
            ]
        return headers

    def _methods(self, segments: list[str]) -> dict[str, Route] | None:
        for pattern, methods in self._table.get(_signature(segments), {}).items():
            if all(not fixed or fixed == given for fixed, given in zip(pattern, segments, strict=True)):
                return methods
        return None

    def _nowhere(self, path: str) -> ProblemError:
        return ProblemError("not-found", f"{path} is not an address. {nearest(path, {r.path for r in ROUTES})}")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _signature(segments: list[str] | tuple[str, ...]) -> tuple[int, str, str]:
    first = segments[0]
    if first == "v1" and len(segments) > 1:
        return len(segments), first, segments[1]
    return len(segments), first, ""


def _fixed(segments: tuple[str, ...]) -> tuple[str, ...]:
    """The pattern of a path: empty where it has a parameter."""
    return tuple("" if each[:1] == "{" else each for each in segments)


def _problem(problem: ProblemError, scope: Scope) -> Answer:
    return Answer(problem.body(scope["path"]), problem.kind.status, PROBLEM, list(problem.headers))


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _allow(methods: Iterable[str]) -> bytes:
    allowed = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(allowed)).encode()
