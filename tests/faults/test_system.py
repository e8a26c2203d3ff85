"""The whole system on real services: what is read online is right, also after each of its parts was killed."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
import redis
from oracle import DAY, HOUR, features, same
from sending import NOON, Orders

from dealeriq.system import System

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(420)]

DEALERS = [f"D{k}" for k in range(8)]
WINDOWS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 7 * DAY, "90d": 90 * DAY}

ASKED = {
    "event_id": {"count": "count"},
    "amount": {each: f"amount_{each}" for each in ("sum", "mean", "std", "min", "max", "last")},
    "quantity": {"sum": "quantity_sum"},
    "customer_id": {"distinct": "customer_id_distinct"},
    "product_id": {"distinct": "product_id_distinct"},
}


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
        sent = [each for each in orders.sent if each["dealer_id"] == dealer]
        for name, width in WINDOWS.items():
            for column, functions in ASKED.items():
                expected = features(sent, column, NOON, width, 60_000)
                for function, feature in functions.items():
                    if name != "90d" and f"{feature}_{name}" not in values:
                        continue  # the longest window has every feature
                    want, got = expected[function], values[f"{feature}_{name}"]
                    if not same(function, got, want):
                        found.append(f"{dealer} {feature}_{name}: online {got}, expected {want}")
    return found


def wait_until_right(system: System, orders: Orders, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while found := wrong(system, orders):
        assert time.monotonic() < deadline, found[:10]
        time.sleep(0.3)


@pytest.fixture(scope="module")
def orders(system: System) -> Orders:
    return Orders(system, DEALERS)


def test_orders_late_repeated_and_poisoned_end_as_right_features(system: System, orders: Orders) -> None:
    first = len(orders.sent)
    for number in range(2_000):
        orders.send(orders.one(number))
    for record in orders.sent[first : first + 300]:
        orders.send(record)  # a repeat counts once
    orders.producer.produce("orders", b"\x00\x00\x00\x00\x63not avro", key="D0")
    orders.producer.produce("orders", None, key="D1")
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
