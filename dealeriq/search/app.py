"""The internal HTTP interface of the search process: a small ASGI application.

It answers `/v1/search` itself, problems included, so that the HTTP service in front passes bytes on.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson

from connectors.log import get_logger
from connectors.vectors import AnyOf, IndexUnavailableError
from dealeriq.http.app import JSON, PROBLEM, Receive, Scope, Send
from dealeriq.http.handlers import Answer, Request
from dealeriq.http.problems import ProblemError
from models.embedding.topics import FIRST
from models.search.fields import FIELDS, SearchRequestError, entries_of
from models.search.likeness import NothingLikeItError
from models.search.request import Answer as SearchAnswer
from models.search.request import SearchRequest
from models.search.searcher import Searcher
from models.text import EncoderUnavailableError
from streams.metrics import DURATION_BUCKETS, REGISTRY, BatchHistogram, StageMeters

__all__ = ["SearchApplication", "request_of_query"]

PATH = "/v1/search"
SECONDS = BatchHistogram(
    "dealeriq_search_seconds",
    "Seconds to answer a search, encoder included",
    "kind",
    DURATION_BUCKETS,
    REGISTRY,
)
_PLAIN = {"q": "text", "text": "text", "like": "like", "dealer_id": "dealer_id"}
log = get_logger("dealeriq.search")


class SearchApplication:
    """Answers searches on a few threads.

    Args:
        searcher: what searches.
        threads: searches at the same time.
        most_bytes: of a request's body.
        token: bearer token that a request must carry; None: none.
    """

    def __init__(
        self, searcher: Searcher, threads: int, most_bytes: int = 1_048_576, token: str | None = None
    ) -> None:
        self.searcher, self._width = searcher, threads
        self._version = uuid.uuid4().hex
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._most_bytes = most_bytes
        self._token = token
        self._meters = StageMeters("search")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection event (ASGI 3)."""
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
            outcome = "ok"
        except ProblemError as problem:
            answer = Answer(problem.body(scope["path"]), problem.kind.status, PROBLEM, list(problem.headers))
            outcome = "refused" if problem.kind.status < 500 else "failed"
        except Exception as error:
            self._meters.error(error)
            log.exception("search failed")
            failed = ProblemError("internal", f"{type(error).__name__} in the search process.")
            answer = Answer(failed.body(scope["path"]), 500, PROBLEM)
            outcome = "failed"
        self._meters.count(outcome)
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(answer.body)).encode()),
            *answer.headers,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def replace(self, searcher: Searcher) -> None:
        """Search with another searcher; returns when no search with the former one goes on."""
        self.searcher, self._version = searcher, uuid.uuid4().hex
        together = threading.Barrier(self._width)
        wait([self._threads.submit(together.wait) for _ in range(self._width)])

    def close(self) -> None:
        """Let the searches that run finish."""
        self._threads.shutdown(wait=True)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if scope["path"] == "/healthz":
            return Answer(b'{"alive":true}')
        if scope["path"] in ("/index", "/entries", "/ranking"):
            self._authorize(scope)
            return await self._look(scope, receive)
        if scope["path"] != PATH or scope["method"] not in ("GET", "POST"):
            raise ProblemError("not-found", f"{scope['method']} {scope['path']} is not an address here.")
        self._authorize(scope)
        request = Request([], scope["query_string"], scope["headers"], receive)
        try:
            if scope["method"] == "GET":
                asked = request_of_query(request.query_string)
            else:
                asked = SearchRequest.of(orjson.loads(await request.body(self._most_bytes)))
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._threads, self._search, asked)
        except orjson.JSONDecodeError as error:
            raise ProblemError("malformed-request", f"The body is not JSON: {error}.") from None
        except NothingLikeItError as error:
            raise ProblemError("not-searchable", _sentence(error), remedy=error.remedy) from None
        except SearchRequestError as error:
            raise ProblemError("bad-search", _sentence(error), remedy=error.remedy) from None
        except (IndexUnavailableError, EncoderUnavailableError) as error:
            raise ProblemError(
                "search-unavailable", _sentence(error), remedy=error.remedy, headers=[(b"retry-after", b"1")]
            ) from None
        SECONDS.observe_repeated("like" if asked.like else "text", found.took_ms / 1000, 1)
        return Answer(orjson.dumps(found.data()), content_type=JSON)

    async def _look(self, scope: Scope, receive: Receive) -> Answer:
        """What the index holds, for who verifies it: position and ids, and entries with their vectors."""
        request = Request([], scope["query_string"], scope["headers"], receive)
        raw = await request.body(self._most_bytes)
        ask: Callable[[], Any] = self._about
        if scope["path"] == "/entries":
            ids = orjson.loads(raw)["ids"]
            ask = partial(self._entries, ids)
        elif scope["path"] == "/ranking":
            ask = self._ranking
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return Answer(orjson.dumps(found), content_type=JSON)

    def _about(self) -> dict[str, Any]:
        """What the index in use holds; `version` is another when another takes its place."""
        version, searcher = self._version, self.searcher
        positions = {f"{name}:{number}": at for (name, number), at in searcher.index.positions().items()}
        kinds = searcher.index.kinds
        ids = [each.id for each in searcher.index.scan([AnyOf("entry", entries_of(kinds))])]
        named = {name: asdict(each) for name, each in kinds.items()}
        return {"version": version, "kinds": named, "positions": positions, "ids": ids}

    def _ranking(self) -> dict[str, Any]:
        weights = self.searcher.weights
        return {
            "pairs": len(weights),
            "weighted": weights.arms.weighted,
            "held_out": weights.arms.held_out,
            "lift": weights.lift(),
        }

    def _entries(self, ids: list[str]) -> dict[str, Any]:
        version, found = self._version, self.searcher.index.get(ids, vectors=True)
        entries = [
            {
                "id": each.id,
                "topic": each.fields.get("topic", FIRST),
                "offset": each.fields["offset"],
                "owner": each.fields["owner"],
                "kind": next(iter(each.dense), None),
                "vector": base64.b64encode(b"".join(of.tobytes() for of in each.dense.values())).decode(),
            }
            for each in found.values()
        ]
        return {"version": version, "entries": entries}

    def _search(self, asked: SearchRequest) -> SearchAnswer:
        return self.searcher.search(asked)  # looked up on the thread itself: see `replace`

    def _authorize(self, scope: Scope) -> None:
        if self._token is None:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
            raise ProblemError(
                "unauthorized", "The request carries no token that is right.",
                headers=[(b"www-authenticate", b"Bearer")],
            )  # fmt: skip


def request_of_query(query_string: bytes) -> SearchRequest:
    """Read a search from query parameters; whatever is none of its own is a filter.

    A filter that comes twice means either value; `price.gte` and `price.lte` bound a number.
    Raises SearchRequestError.
    """
    body: dict[str, Any] = {}
    filters: dict[str, Any] = {}
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="replace")
    for name, value in pairs:
        if name in _PLAIN:
            body[_PLAIN[name]] = value
        elif name == "limit":
            if not value.isdecimal():
                raise SearchRequestError(f"limit is {value[:40]!r}", remedy="Give limit a whole number.")
            body["limit"] = int(value[:9])
        elif name == "kinds":
            body.setdefault("kinds", []).extend(value.split(","))
        elif name == "correct":
            if value not in ("true", "false"):
                raise SearchRequestError(f"correct is {value[:40]!r}", remedy="Give correct true or false.")
            body["correct"] = value == "true"
        else:
            _add_filter(filters, name, value)
    return SearchRequest.of(body | {"filters": filters})


def _add_filter(filters: dict[str, Any], name: str, value: str) -> None:
    field, _, bound = name.partition(".")
    declared = FIELDS.get(field)
    if declared is not None and declared.kind == "number":
        bounds = {bound: value} if bound else {"gte": value, "lte": value}
        filters.setdefault(field, {}).update(bounds)
    else:
        filters.setdefault(name, []).append(value)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text if text.endswith((".", "?")) else f"{text}."
