"""The client alone: what it imports, how it retries, which error stands for which problem."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import dealeriq.client
from dealeriq.client import (
    ConnectionFailedError,
    DealerIQ,
    DealerIQClientError,
    RetryPolicy,
    ServiceError,
    TimedOutError,
    errors,
)
from dealeriq.http.problems import KINDS

QUICK = RetryPolicy(attempts=3, first_s=0.001, longest_s=0.002)
ROW: dict[str, Any] = {"entity": {"dealer_id": "7"}, "at": 1_501_545_600_000, "features": {"v": {"a": 1.0}}}


def printed(code: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def test_importing_the_client_pulls_nothing_of_the_server() -> None:
    code = "import dealeriq.client, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(printed(code))
    server = {"schemas", "connectors", "features", "streams", "redis", "uvicorn", "orjson", "prometheus_client"}
    assert not loaded & (server | {"structlog", "feast", "torch", "pandas", "numpy", "confluent_kafka"})
    code = "import dealeriq.client, sys; print(*(name for name in sys.modules if name.startswith('dealeriq')))"
    ours = printed(code)
    assert all(name == "dealeriq" or name.startswith("dealeriq.client") for name in ours)


def test_every_public_name_is_listed() -> None:
    public = {n for n in vars(dealeriq.client) if not n.startswith("_") and n[0].isupper()}
    assert public == set(dealeriq.client.__all__)


@pytest.mark.parametrize("slug", sorted(KINDS))
def test_every_problem_has_an_error_with_its_remedy(slug: str) -> None:
    assert slug in errors._BY_SLUG
    problem = {"type": f"/problems/{slug}", "detail": "what came", "remedy": "do this"}
    error = errors.from_problem(KINDS[slug].status, problem, None)
    assert isinstance(error, DealerIQClientError)
    assert (str(error), error.remedy, error.status) == ("what came", "do this", KINDS[slug].status)


def client(handler: Any) -> DealerIQ:
    return DealerIQ("http://dealeriq.test", retry=QUICK, transport=httpx.MockTransport(handler))


def test_unavailable_and_lost_connections_are_tried_again() -> None:
    tries: list[int] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) == 1:
            raise httpx.ConnectError("refused")
        return (
            httpx.Response(503, headers={"retry-after": "0"})
            if len(tries) == 2
            else httpx.Response(200, json=ROW)
        )

    assert client(flaky).features("7")["v:a"] == 1.0
    assert len(tries) == 3


def test_a_request_error_is_not_tried_again() -> None:
    tries: list[int] = []

    def refuses(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        return httpx.Response(422, json={"type": "/problems/wrong-entity", "detail": "no"})

    with pytest.raises(dealeriq.client.WrongEntityError):
        client(refuses).features("7")
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("raised", "expected"), [(httpx.ConnectError, ConnectionFailedError), (httpx.ReadTimeout, TimedOutError)]
)
def test_used_up_tries_say_so(raised: type[Exception], expected: type[Exception]) -> None:
    def fails(request: httpx.Request) -> httpx.Response:
        raise raised("broken")

    with pytest.raises(expected, match="3 tries"):
        client(fails).features("7")


def test_something_else_at_the_address_is_told() -> None:
    with pytest.raises(ServiceError, match="not DealerIQ"):
        client(lambda request: httpx.Response(200, text="<html>")).features("7")


def test_times_are_sent_as_milliseconds_and_need_a_zone() -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**ROW, "at": int(request.url.params["at"])})

    moment = datetime(2017, 8, 1, tzinfo=UTC)
    assert client(echo).features("7", at=moment).at == moment
    with pytest.raises(ValueError, match="time zone"):
        client(echo).features("7", at=datetime(2017, 8, 1))
