"""The protocol over REST: a small ASGI application."""

from __future__ import annotations

import asyncio
import hmac
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson

from connectors.log import get_logger
from dealeriq.http.app import JSON, Receive, Scope, Send
from dealeriq.http.handlers import Request
from dealeriq.http.problems import ProblemError
from dealeriq.inference.answering import EXTENSIONS, NAME, Answering, server_version
from dealeriq.inference.versions import NoSuchModelError
from models.lifecycle import NoSuchVersionError
from models.oip.rest import HEADER_LENGTH, Body, read_call, write_answer
from models.oip.tensors import ProtocolError
from schemas.errors import DealerIQError
from streams.metrics import DURATION_BUCKETS, REGISTRY, BatchHistogram, StageMeters

__all__ = ["InferenceApplication"]

DURATION = BatchHistogram(
    "dealeriq_inference_request_seconds", "Seconds to answer a request of the protocol over REST", "api",
    DURATION_BUCKETS, REGISTRY,
)  # fmt: skip
_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
T = TypeVar("T")
log = get_logger("dealeriq.inference")


class _Refused(Exception):  # noqa: N818 - an answer, not an error
    """An answer that is an error: its status and words."""

    def __init__(self, status: int, words: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(words)
        self.status, self.headers = status, headers


class InferenceApplication:
    """Answers `/v2`; large batches on a few threads, small ones where they are read.

    Args:
        answering: what answers.
        threads: large batches at the same time.
        most_bytes: of a request, before and after decompression.
        token: bearer token that a request must carry, but for liveness and readiness; None: none.
    """

    def __init__(self, answering: Answering, threads: int, most_bytes: int, token: str | None = None) -> None:
        self._answering, self._most_bytes, self._token = answering, most_bytes, token
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._meters = StageMeters("inference")
        server = {"name": NAME, "version": server_version(), "extensions": list(EXTENSIONS)}
        self._server = orjson.dumps(server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection event (ASGI 3)."""
        if scope["type"] != "http":
            return
        began, api = time.perf_counter(), "none"
        status, headers, body = 200, [], b""
        try:
            api, answer = await self._answer(scope, receive)
            if isinstance(answer, Body):
                body = answer.content
                headers.append((b"content-type", answer.content_type.encode()))
                if answer.header_length is not None:
                    headers.append((HEADER_LENGTH.encode(), str(answer.header_length).encode()))
            else:
                body = answer
        except _Refused as refused:
            status, headers = refused.status, list(refused.headers)
            body = orjson.dumps({"error": str(refused)})
        except Exception as error:
            self._meters.error(error)
            log.exception("request failed", path=scope["path"])
            status, body = 500, orjson.dumps({"error": f"{type(error).__name__} in the inference process"})
        if not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", JSON))
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self._meters.count("ok" if status < 400 else "refused" if status < 500 else "failed")
        DURATION.observe_repeated(api, time.perf_counter() - began, 1)

    def close(self) -> None:
        """Let the calls that run finish."""
        self._threads.shutdown(wait=True)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, bytes | Body]:
        path = [unquote(each) for each in scope["raw_path"].partition(b"?")[0].decode("latin-1").split("/")[1:]]
        match path:
            case ["v2", "health", ("live" | "ready") as which]:
                self._method(scope, "GET")
                ready = which == "live" or self._answering.versions.ready
                if not ready:
                    raise _Refused(503, "not every champion answers", (b"retry-after", b"1"))
                return which, orjson.dumps({which: True})
            case ["v2"] | ["v2", ""]:
                self._allow(scope, "GET")
                return "server", self._server
            case ["v2", "models", model, *more]:
                version = ""
                if more[:1] == ["versions"] and len(more) > 1:
                    version, more = more[1], more[2:]
                match more:
                    case []:
                        self._allow(scope, "GET")
                        found = await self._threaded(lambda: self._answering.model(model, version))
                        return "model", orjson.dumps(found)
                    case ["ready"]:
                        self._allow(scope, "GET")
                        ready = await self._threaded(lambda: self._answering.model_ready(model, version))
                        return "model_ready", orjson.dumps({"name": model, "ready": ready})
                    case ["infer"]:
                        self._allow(scope, "POST")
                        return "infer", await self._infer(model, version, scope, receive)
        raise _Refused(404, f"{scope['path']} is not an address of the Open Inference Protocol")

    async def _infer(self, model: str, version: str, scope: Scope, receive: Receive) -> Body:
        raw = await self._body(scope, receive)
        length = _header(scope, HEADER_LENGTH.encode())
        try:
            asked = read_call(model, version, raw, None if length is None else length.decode("latin-1"))
        except ProtocolError as error:
            raise _Refused(400, str(error)) from None
        call = asked.call
        if self._answering.quick(call):
            answer = _translated(lambda: self._answering.infer(call))
        else:
            answer = await self._threaded(lambda: self._answering.infer(call))
        return write_answer(answer, asked)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self._most_bytes
        words = f"the request is larger than {most} bytes (setting inference.max_body_bytes)"
        try:
            raw = await Request([], b"", scope["headers"], receive).body(most)
        except ProblemError as problem:
            if problem.kind.slug == "too-large":
                raise _Refused(413, words, (b"connection", b"close")) from None
            raise _Refused(400, str(problem)) from None
        encoding = _header(scope, b"content-encoding") or b"identity"
        if encoding == b"identity":
            return raw
        if encoding not in _WINDOW:
            raise _Refused(415, f"Content-Encoding is {encoding[:40]!r}; gzip and deflate are understood")
        inflate = zlib.decompressobj(_WINDOW[encoding])
        try:
            plain = inflate.decompress(raw, most + 1)
        except zlib.error as error:
            raise _Refused(400, f"the body is no {encoding.decode()}: {error}") from None
        if len(plain) > most:
            raise _Refused(413, words)
        if not inflate.eof:
            raise _Refused(400, f"the body ends before its {encoding.decode()} does")
        return plain

    async def _threaded(self, action: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: _translated(action))

    def _allow(self, scope: Scope, method: str) -> None:
        self._method(scope, method)
        if self._token is not None:
            given = _header(scope, b"authorization") or b""
            if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                words = "the request carries no token that is right (setting http.token)"
                raise _Refused(401, words, (b"www-authenticate", b"Bearer"))

    @staticmethod
    def _method(scope: Scope, method: str) -> None:
        if scope["method"] not in (method, "HEAD" if method == "GET" else method):
            raise _Refused(405, f"{scope['path']} takes {method}", (b"allow", method.encode()))


def _translated(action: Callable[[], T]) -> T:
    try:
        return action()
    except ProtocolError as error:
        raise _Refused(400, str(error)) from None
    except (NoSuchModelError, NoSuchVersionError) as error:
        raise _Refused(404, str(error)) from None
    except DealerIQError as error:  # the model's folder, or the endpoint that answers for it
        raise _Refused(503, error.told, (b"retry-after", b"5")) from error


def _header(scope: Scope, name: bytes) -> bytes | None:
    found: Any = next((value for key, value in scope["headers"] if key == name), None)
    return found if found is None else bytes(found)
