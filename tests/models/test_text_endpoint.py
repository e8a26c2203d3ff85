"""The encoder behind an address, against a server of OpenAI's embeddings API on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from models.text import EncoderError, EncoderUnavailableError, TextSettings, text_encoder
from models.text.endpoint import EndpointTextEncoder, TextRefusedError

Reply = tuple[int, dict[str, Any], dict[str, str]]


def vector(text: str) -> list[float]:
    """What the server gives for a text: its length and its first and last letters."""
    return [float(len(text)), float(ord(text[0])), float(ord(text[-1])), 1.0]


def embedded(body: dict[str, Any]) -> Reply:
    data = [{"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
    # An answer may come in any order: its index counts.
    return 200, {"data": data[::-1], "usage": {"total_tokens": 10 * len(data)}}, {}


class Service:
    """A server whose next answers a test may choose."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.replies: list[Callable[[dict[str, Any]], Reply]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.asked.append(body)
                service.keys.append(self.headers.get("authorization"))
                reply = service.replies.pop(0) if service.replies else embedded
                status, answer, headers = reply(body) if self.path == "/v1/embeddings" else (404, {}, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.server.shutdown()
    found.server.server_close()


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def encoder(
    service: Service, time: Time | None = None, counted: list[int] | None = None, **settings: Any
) -> EndpointTextEncoder:
    time = time or Time()
    text = TextSettings(endpoint=service.url, endpoint_model="small", **settings)  # type: ignore[arg-type]
    tell = [].append if counted is None else counted.append
    return EndpointTextEncoder(text, tokens=tell, clock=time.clock, sleep=time.sleep)


def refuse(status: int, **headers: str) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: (
        status,
        {"error": "no"},
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


def test_vectors_come_in_the_batchs_order_and_have_length_1(service: Service) -> None:
    counted: list[int] = []
    one = encoder(service, counted=counted, endpoint_batch=2, endpoint_key="s3cret")
    texts = ["wine", "a  bottle\nof milk", "", "tea"]
    found = one.encode(texts)
    wanted = np.array([vector(each) for each in ("wine", "a bottle of milk", " ", "tea")], np.float32)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-6)
    assert one.dimension == 4
    assert [len(each["input"]) for each in service.asked] == [1, 2, 2]
    assert counted == [10, 20, 20]
    assert set(service.keys) == {"Bearer s3cret"}
    assert one.encode([]).shape == (0, 4)
    assert text_encoder(TextSettings(endpoint=service.url, endpoint_model="small")).identity == one.identity  # type: ignore[arg-type]
    assert encoder(service, max_tokens=8).encode(["x" * 100]).shape == (1, 4)
    assert service.asked[-1]["input"] == ["x" * 32]


def test_what_passes_is_asked_again_and_waits_as_told(service: Service) -> None:
    time = Time()
    one = encoder(service, time)
    service.replies = [refuse(500), refuse(429, retry_after="7"), refuse(503)]
    assert one.encode(["tea"]).shape == (1, 4)
    assert time.slept == [0.5, 7.0, 2.0]


def test_a_service_that_stays_away_is_said_after_the_patience(service: Service) -> None:
    time = Time()
    one = encoder(service, time, endpoint_patience_s=10.0)
    service.replies = [refuse(500)] * 20
    with pytest.raises(EncoderUnavailableError, match="does not encode: 500"):
        one.encode(["tea"])
    assert sum(time.slept) <= 10
    service.server.shutdown()
    service.server.server_close()
    with pytest.raises(EncoderUnavailableError, match="ConnectError"):
        one.encode(["tea"])


def test_one_text_that_is_refused_takes_no_others_along(service: Service) -> None:
    def picky(body: dict[str, Any]) -> Reply:
        return (
            (400, {"error": "too long"}, {}) if any("bad" in each for each in body["input"]) else embedded(body)
        )

    one = encoder(service)
    service.replies = [picky] * 4
    with pytest.raises(TextRefusedError, match="too long"):
        one.encode(["tea", "bad", "milk"])
    service.replies = [refuse(413)]  # the batch was too large: each text alone is taken
    assert one.encode(["tea", "milk"]).shape == (2, 4)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": [{"index": 0, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": [0.0, 0.0, 0.0, 0.0]}]},
        {"data": [{"index": 0, "embedding": [1.0, "x", 0.0, 0.0]}]},
        {"data": [{"index": 0, "embedding": [float("nan"), 1.0, 0.0, 0.0]}]},
        {"data": []},
    ],
)
def test_an_answer_that_is_no_vector_is_never_taken_for_one(service: Service, answer: dict[str, Any]) -> None:
    one = encoder(service)
    service.replies = [lambda _: (200, answer, {})]
    with pytest.raises(EncoderUnavailableError, match="answers with"):
        one.encode(["tea"])


def test_who_is_refused_at_the_start_is_told_what_to_set(service: Service) -> None:
    service.replies = [refuse(401)]
    with pytest.raises(EncoderError, match="refuses us with 401"):
        encoder(service)
    with pytest.raises(EncoderError, match="endpoint_model"):
        EndpointTextEncoder(TextSettings(endpoint=service.url))  # type: ignore[arg-type]


def test_the_rate_is_kept(service: Service) -> None:
    time = Time()
    one = encoder(service, time, endpoint_requests_per_minute=3)
    began = time.now
    for _ in range(7):
        one.encode(["tea"])
    assert len(service.asked) == 8  # one at the start
    assert time.now - began == 120.0


def test_the_days_tokens_are_kept_and_the_next_day_has_its_own(service: Service) -> None:
    time = Time()
    one = encoder(service, time, endpoint_tokens_per_day=35)
    one.encode(["tea"])
    one.encode(["milk"])
    with pytest.raises(EncoderUnavailableError, match="5 of 35 tokens are left today"):
        one.encode(["x" * 100])
    asked = len(service.asked)
    time.now += 86_400
    one.encode(["x" * 100])
    assert len(service.asked) == asked + 1
