"""The whole system on real services: what is read online is right, also after each of its parts was killed."""

import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from oracle import DAY, HOUR, order_features

from connectors.kafka import producer
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System
from features.plan import load as load_plan
from schemas.codec import Encoder
from schemas.envelope import headers
from schemas.ids import event_id
from streams.verify import verify_features

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(420)]

NOON = 1_700_000_000_000 // DAY * DAY + 12 * HOUR
DEALERS = [f"D{k}" for k in range(8)]
WINDOWS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 7 * DAY, "90d": 90 * DAY}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="dealeriq-system-"))
    try:
        with Supervisor(load(), SERVICES, folder, prefer_default_ports=False) as supervisor:
            running = System(supervisor, clock="event")
            running.start()
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Orders:
    """Produces order lines and remembers what it sent."""

    def __init__(self, system: System) -> None:
        settings = system.supervisor.settings
        self.sent: list[dict[str, Any]] = []
        self._ids = Registry(settings.registry).register_all(["orders"])
        self._encoder = Encoder("orders", self._ids["orders-value"])
        self._producer = producer(settings.kafka, linger_ms=1)
        self._random = random.Random(7)

    def one(self, number: int) -> dict[str, Any]:
        pick = self._random
        return {
            "event_id": event_id("orders", f"T{number}", "1"), "order_id": f"T{number}", "line": 1,
            "dealer_id": pick.choice(DEALERS), "customer_id": f"C{pick.randrange(50)}",
            "product_id": f"P{pick.randrange(40)}", "category": pick.choice(["GROCERY", "MEAT"]), "brand": None,
            "quantity": pick.randrange(1, 9), "amount": pick.randrange(1, 10_000) / 100, "discount": 0.0,
            "currency": "USD", "channel": "store",
            "event_time": NOON - int(pick.expovariate(1 / (3 * DAY))),
        }  # fmt: skip

    def send(self, record: dict[str, Any]) -> None:
        self._producer.produce(
            "orders", self._encoder.encode(record), key=record["dealer_id"],
            headers=headers(record["event_id"], "orders", "test", record["event_time"], record["dealer_id"]),
        )  # fmt: skip
        self.sent.append(record)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0


def online(system: System, dealer: str) -> dict[str, Any]:
    address = f"{system.supervisor.settings.http.url}/v1/features/dealer_orders/{dealer}?at={NOON}"
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)["features"]["dealer_orders"]  # type: ignore[no-any-return]


def wrong(system: System, orders: Orders) -> list[str]:
    """Every online value that the plain recomputation does not give."""
    found = []
    for dealer in DEALERS:
        try:
            values = online(system, dealer)
        except (OSError, urllib.error.URLError) as failure:
            return [f"{dealer}: {failure}"]
        for name, width in WINDOWS.items():
            expected = order_features(orders.sent, dealer, NOON, width)
            keys = {"count": f"count_{name}"} | {k: f"amount_{k}_{name}" for k in ("sum", "mean", "min", "max")}
            for function, feature in keys.items():
                want, got = expected[function], values[feature]
                if (want is None) != (got is None) or (want is not None and abs(want - got) > 1e-6):
                    found.append(f"{dealer} {feature}: online {got}, expected {want}")
    return found


def wait_until_right(system: System, orders: Orders, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while found := wrong(system, orders):
        assert time.monotonic() < deadline, found[:10]
        time.sleep(0.3)


@pytest.fixture(scope="module")
def orders(system: System) -> Orders:
    return Orders(system)


def test_orders_late_repeated_and_poisoned_end_as_right_features(system: System, orders: Orders) -> None:
    first = len(orders.sent)
    for number in range(2_000):
        orders.send(orders.one(number))
    for record in orders.sent[first : first + 300]:
        orders.send(record)  # a repeat counts once
    orders._producer.produce("orders", b"\x00\x00\x00\x00\x63not avro", key="D0")
    orders._producer.produce("orders", None, key="D1")
    orders.flush()
    wait_until_right(system, orders)


@pytest.mark.parametrize(
    "victim", ["feature-view", "flink-taskmanager", "flink-jobmanager", "kafka", "redis", "registry", "http"]
)
def test_kill_9_of_a_child_ends_with_every_feature_right(system: System, orders: Orders, victim: str) -> None:
    start = 10_000 + 1_000 * len(orders.sent)
    done = threading.Event()

    def play() -> None:
        for number in range(start, start + 1_500):
            orders.send(orders.one(number))
            if number % 50 == 0:
                time.sleep(0.05)
        done.set()

    player = threading.Thread(target=play)
    player.start()
    time.sleep(0.5)
    pid = next(each.pid for each in system.supervisor.status() if each.name == victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    player.join(60)
    assert done.is_set()
    orders.flush()
    wait_until_right(system, orders, 150)


def test_a_store_that_was_emptied_is_filled_again_from_the_log(system: System, orders: Orders) -> None:
    wait_until_right(system, orders)
    redis.Redis.from_url(system.supervisor.settings.redis.address).flushall()
    start = 10_000_000 + len(orders.sent)
    for number in range(start, start + 200):
        orders.send(orders.one(number))
    orders.flush()
    wait_until_right(system, orders)


def test_verify_finds_a_tile_that_was_changed_by_hand(system: System, orders: Orders) -> None:
    wait_until_right(system, orders)
    settings, plan = system.supervisor.settings, load_plan()
    store = redis.Redis.from_url(settings.redis.address)

    def verified() -> Any:
        return verify_features(
            settings.kafka, Registry(settings.registry), store, plan, at_ms=NOON, sample=None
        )

    report = verified()
    assert report.clean, report.differences[:5]
    assert report.topics["orders"]["duplicates"] == 300
    assert report.topics["orders"]["rejected"] == 2

    from features.keys import entity_key, field, unwrap_bytes, value_proto
    from features.tiles import decode, encode

    view = plan.views["dealer_orders"]
    key = entity_key(view, {"dealer_id": "D3"}, plan.project)
    name = field(view.name, "tiles")
    before = store.hget(key, name)
    rows = decode(unwrap_bytes(before)).rows()
    days = [k for k, row in enumerate(rows) if row.grain_s == 86_400]
    rows[days[-2]] = rows[days[-2]]._replace(n=rows[days[-2]].n + 1)
    store.hset(key, name, value_proto(encode(rows)))
    found = verified().differences
    store.hset(key, name, before)
    assert {(each.view, each.entity) for each in found} == {("dealer_orders", ("D3",))}
    assert "count_90d" in {each.feature for each in found}
    assert verified().clean
