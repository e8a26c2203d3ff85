"""Verify on the whole running system: clean while orders flow, and able to see what is wrong by hand's work."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import pytest
import redis
from sending import NOON, Orders

from connectors.lake import lake_at, open_delta
from dealeriq.system import System
from dealeriq.verifier import verifier
from features.keys import entity_key, timestamp_proto, unwrap_bytes, value_proto
from features.keys import field as hash_field
from features.plan import load as load_plan
from features.tiles import Tile, decode, encode
from streams.verify import Report
from streams.verify.repair import Repairer
from streams.verify.verifier import Verifier

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(600)]

DEALERS = [f"V{k}" for k in range(12)]
PLAN = load_plan()


@dataclass
class Store:
    """The online store, as a hand would change it."""

    redis: Any
    undo: list[Callable[[], None]] = field(default_factory=list)

    def key(self, view: str, *entity: str) -> bytes:
        plan = PLAN.views[view]
        return entity_key(plan, dict(zip(plan.entity, entity, strict=True)), PLAN.project)

    def tiles(self, view: str, *entity: str) -> list[Tile]:
        stored = self.redis.hget(self.key(view, *entity), hash_field(view, "tiles"))
        return decode(unwrap_bytes(stored)).rows()

    def put(self, view: str, entity: tuple[str, ...], tiles: list[Tile]) -> None:
        blob = value_proto(encode(tiles, PLAN.views[view]))
        self.redis.hset(self.key(view, *entity), hash_field(view, "tiles"), blob)


@pytest.fixture(scope="module")
def store(system: System) -> Store:
    return Store(redis.Redis.from_url(system.supervisor.settings.redis.address))


@pytest.fixture(scope="module")
def orders(system: System) -> Orders:
    made = Orders(system, DEALERS)
    for number in range(50_000_000, 50_002_400):
        made.send(made.one(number))
    for record in made.sent[:200]:
        made.send(record)  # a repeat counts once
    made.producer.produce("orders", b"\x00\x00\x00\x00\x63not avro", key="V0")
    made.producer.produce("orders", None, key="V1")
    made.send(made.one(50_002_400) | {"quantity": -3})
    made.sent.pop()
    made.flush()
    return made


def check(system: System, sample: int | None = None, patience_s: float = 32.0) -> tuple[Verifier, Report]:
    one = verifier(system.supervisor.settings)
    one.patience_s = patience_s
    one.wait_s = 300  # for a slow machine; it goes on as soon as the commits are there
    return one, one.run(sample=sample)


def lines(report: Report) -> list[str]:
    return [finding.line() for finding in report.findings[:20]]


def test_it_is_clean_while_orders_flow_and_counts_every_record_once(system: System, orders: Orders) -> None:
    stop = threading.Event()

    def flow() -> None:
        number = 51_000_000
        while not stop.wait(0.01):
            for _ in range(5):
                orders.send(orders.one(number))
                number += 1

    player = threading.Thread(target=flow)
    player.start()
    try:
        for sample in (None, 4, None):
            _, report = check(system, sample)
            assert report.clean, lines(report)
            assert report.values > 0
            if sample is None:
                account = report.topics["orders"]
                assert sum(account.values()) == 2 * account["records"]
                assert account["lost"] == 0
    finally:
        stop.set()
        player.join(30)
    orders.flush()
    _, report = check(system)
    assert report.clean, lines(report)
    account = report.topics["orders"]
    assert account["in_flight"] == 0
    assert account["dead_letter"] >= 3
    assert account["duplicate"] >= 200
    assert account["applied"] + account["aged"] + account["late"] >= 2_400


def test_a_transaction_that_was_aborted_counts_nowhere(system: System, orders: Orders) -> None:
    from connectors.kafka import producer

    writer = producer(system.supervisor.settings.kafka, transactional_id="dealeriq-test-aborted")
    writer.init_transactions(60)
    writer.begin_transaction()
    for number in range(52_000_000, 52_000_050):
        record = orders.one(number)
        writer.produce("orders", orders.encoder.encode(record), key=record["dealer_id"])
    writer.flush(60)
    writer.abort_transaction(60)
    orders.send(orders.one(52_000_050))
    orders.flush()
    _, report = check(system)
    assert report.clean, lines(report)


def day(tiles: list[Tile]) -> int:
    """The last whole day: the newest day's tile is in no window that ends within it."""
    return [index for index, tile in enumerate(tiles) if tile.grain_s == 86_400][-2]


def plant(store: Store) -> dict[tuple[str, tuple[str, ...]], set[str]]:
    """Change one thing in each of many rows; return which kinds of finding each must have."""
    view = "dealer_orders"
    expected: dict[tuple[str, tuple[str, ...]], set[str]] = {}

    def of(name: str, entity: tuple[str, ...], *kinds: str) -> None:
        expected[name, entity] = set(kinds)

    tiles = store.tiles(view, "V0")  # a tile's count
    tiles[day(tiles)] = tiles[day(tiles)]._replace(n=tiles[day(tiles)].n + 1)
    store.put(view, ("V0",), tiles)
    of(view, ("V0",), "tile", "value")
    tiles = store.tiles(view, "V1")  # a tile's sum, by a cent
    doubles = tiles[day(tiles)].doubles
    tiles[day(tiles)] = tiles[day(tiles)]._replace(doubles=(doubles[0] + 0.01, *doubles[1:]))
    store.put(view, ("V1",), tiles)
    of(view, ("V1",), "tile", "value")
    tiles = store.tiles(view, "V2")  # a tile gone
    del tiles[day(tiles)]
    store.put(view, ("V2",), tiles)
    of(view, ("V2",), "missing-tile")
    tiles = store.tiles(view, "V3")  # a tile twice
    store.put(view, ("V3",), [*tiles, tiles[day(tiles)]])
    of(view, ("V3",), "extra-tile", "value")
    tiles = store.tiles(view, "V4")  # a tile of events that never were
    store.put(
        view, ("V4",), [*tiles, tiles[day(tiles)]._replace(hop_ms=tiles[day(tiles)].hop_ms - 80 * 86_400_000)]
    )
    of(view, ("V4",), "extra-tile", "value")
    store.redis.hdel(store.key(view, "V5"), hash_field(view, "tiles"), f"_ts:{view}", f"_version:{view}")
    of(view, ("V5",), "missing-row")
    for field_, dealer in ((f"_ts:{view}", "V6"), (f"_version:{view}", "V7")):
        store.redis.hdel(store.key(view, dealer), field_)
        of(view, (dealer,), "missing-field")
    store.redis.hset(
        store.key(view, "V8"), hash_field(view, "tiles"), value_proto(b"DTL?garbage that is no blob")
    )
    of(view, ("V8",), "unreadable-row")
    store.redis.hset(store.key(view, "V9"), f"_ts:{view}", timestamp_proto(NOON + 40 * 86_400_000))
    of(view, ("V9",), "time", "extra-tile")
    tiles = store.tiles(view, "V10")  # an older tile in place of a newer one, positions and all
    newest = tiles[day(tiles)]
    older = tuple(p - 1 if p == max(newest.positions) else p for p in newest.positions)
    tiles[day(tiles)] = newest._replace(n=newest.n - 1, positions=older)
    store.put(view, ("V10",), tiles)
    of(view, ("V10",), "behind", "tile")
    store.put(view, ("NOBODY",), store.tiles(view, "V11"))  # a row of nobody
    of(view, ("NOBODY",), "extra-row")
    category = "dealer_category_orders"
    tiles = store.tiles(category, "V11", "MEAT")
    tiles[0] = tiles[0]._replace(max_event_time=tiles[0].max_event_time - 1)
    store.put(category, ("V11", "MEAT"), tiles)
    of(category, ("V11", "MEAT"), "tile")
    return expected


def test_every_change_by_hand_is_named_and_repaired_and_nothing_else(
    system: System, orders: Orders, store: Store
) -> None:
    _, before = check(system)
    assert before.clean, lines(before)
    expected = plant(store)
    untouched = store.redis.dump(store.key("product_demand", "P1"))
    positions = "dealeriq:position:product_demand"
    partition, held = next((name, int(value)) for name, value in store.redis.hgetall(positions).items())
    store.redis.hset(positions, partition, held - 1)
    clock = int(store.redis.get("dealeriq:clock"))
    store.redis.set("dealeriq:clock", clock + 3_600_000)
    one, report = check(system, patience_s=3.0)
    found: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for finding in report.findings:
        found.setdefault((finding.view, finding.entity), set()).add(finding.kind)
    assert found.pop(("tiles.product_demand", ())) == {"position"}
    assert found.pop(("dealeriq:clock", ())) == {"clock"}
    assert found.keys() == expected.keys(), lines(report)
    for place, kinds in expected.items():
        assert kinds <= found[place], (place, found[place])

    plan = Repairer(one).plan()
    assert {(each.view, each.entity) for each in plan} >= expected.keys()
    assert not any(each.done for each in plan)
    _, again = check(system, patience_s=3.0)
    assert not again.clean
    repaired = Repairer(one).execute()
    assert all(each.done for each in repaired), [each.line() for each in repaired]
    assert {each.view for each in repaired} == {
        "dealer_orders", "dealer_category_orders", "tiles.product_demand", "dealeriq:clock",
    }  # fmt: skip
    assert store.redis.dump(store.key("product_demand", "P1")) == untouched
    _, clean = check(system)
    assert clean.clean, lines(clean)
    assert int(store.redis.get("dealeriq:clock")) == clock

    orders.send(orders.one(53_000_000) | {"dealer_id": "V2"})  # the live view goes on from what was repaired
    orders.flush()
    _, after = check(system)
    assert after.clean, lines(after)


def test_a_row_that_was_written_meanwhile_is_left_alone(system: System, orders: Orders, store: Store) -> None:
    view = "dealer_orders"
    tiles = store.tiles(view, "V3")
    good = encode(tiles, PLAN.views[view])
    tiles[0] = tiles[0]._replace(n=tiles[0].n + 7)
    store.put(view, ("V3",), tiles)
    one, report = check(system)
    assert not report.clean
    work = Repairer(one)._work()
    repair, act = next(iter(work))
    store.redis.hset(store.key(view, "V3"), f"_version:{view}", b"another writer")
    assert not act()
    assert repair.entity == ("V3",)
    store.redis.hset(store.key(view, "V3"), hash_field(view, "tiles"), value_proto(good))
    _, clean = check(system)
    assert clean.clean, lines(clean)


def test_a_sample_does_not_blame_the_store_for_what_the_lake_lost(
    system: System, orders: Orders, store: Store
) -> None:
    root = lake_at(system.supervisor.settings.lake, system.supervisor.settings.data_dir)
    deadline = time.monotonic() + 300
    while True:  # until the lake has all of it
        one, report = check(system)
        assert report.clean, lines(report)
        if report.lake["orders"]["behind"] == 0:
            break
        assert time.monotonic() < deadline, report.lake
    lost = open_delta(root, "orders")
    lost.delete("dealer_id IN ('V0', 'V1') AND _offset % 2 = 0")
    _, sampled = check(system, 1_000)
    assert not any(each.store == "online" for each in sampled.findings), lines(sampled)
    good = store.tiles("dealer_orders", "V3")
    wrong = [*good[:-1], good[-1]._replace(n=good[-1].n + 1)]
    store.put("dealer_orders", ("V3",), wrong)  # and it still sees what is wrong in the store
    _, sampled = check(system, 1_000, patience_s=3.0)
    assert {each.entity for each in sampled.findings if each.store == "online"} == {("V3",)}, lines(sampled)
    store.put("dealer_orders", ("V3",), good)
    one, report = check(system)
    assert {each.kind for each in report.findings} <= {"missing-record", "current"}, lines(report)
    assert all(each.done for each in Repairer(one).execute())
    _, report = check(system)
    assert report.clean, lines(report)


def test_the_command_exits_1_and_repairs(system: System, orders: Orders, store: Store) -> None:
    environment = os.environ | system.supervisor.settings.environment()
    environment["DEALERIQ_KAFKA__CLIENT_ID"] = "verify-test"

    def run(*more: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "dealeriq", "verify", "--json", *more],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    view = "dealer_orders"
    tiles = store.tiles(view, "V4")
    tiles[-1] = tiles[-1]._replace(n=tiles[-1].n + 1)
    store.put(view, ("V4",), tiles)
    code, found = run("--repair")
    assert (code, found["executed"], found["counts"]["tile"]) == (1, False, 1)
    assert [each["entity"] for each in found["repairs"]] == [["V4"]]
    code, found = run("--repair", "--execute")
    assert (code, [each["done"] for each in found["repairs"]], found["beyond"]) == (0, [True], {})
    code, found = run()
    assert (code, found["clean"]) == (0, True)


def test_the_scheduled_verifier_reports_what_it_found(system: System, orders: Orders, store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    view = "dealer_orders"
    good = store.redis.hget(store.key(view, "V6"), hash_field(view, "tiles"))
    tiles = store.tiles(view, "V6")
    tiles[-1] = tiles[-1]._replace(n=tiles[-1].n + 1)
    store.put(view, ("V6",), tiles)
    environment = os.environ | system.supervisor.settings.environment()
    environment |= {"DEALERIQ_METRICS_PORT": str(port)}
    environment |= {"DEALERIQ_VERIFY__EVERY_S": "1", "DEALERIQ_VERIFY__SAMPLE": "1000"}

    def until(line: str) -> str:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
                if line in text:
                    return str(text)
            assert time.monotonic() < deadline, line
            time.sleep(0.5)

    with subprocess.Popen([sys.executable, "-m", "dealeriq.processes", "verifier"], env=environment) as process:
        try:
            until('dealeriq_verify_findings{kind="tile"} 1.0')
            store.redis.hset(store.key(view, "V6"), hash_field(view, "tiles"), good)
            found = until('dealeriq_verify_findings{kind="tile"} 0.0')
            assert 'dealeriq_verify_runs_total{outcome="findings"}' in found
            assert "dealeriq_verify_last_run_seconds" in found
            until('dealeriq_verify_runs_total{outcome="clean"}')
        finally:
            process.terminate()
            process.wait(60)


def test_letters_and_events_without_a_cause_are_named_and_letters_written_anew(
    system: System, orders: Orders
) -> None:
    """Last in this file: a letter and an event too many cannot be taken out of a topic."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    from connectors.dead_letters import dead_letters
    from connectors.kafka import dead_letter_headers
    from connectors.registry import Registry
    from schemas.codec import Encoder

    _, report = check(system)
    assert report.clean, lines(report)
    settings = system.supervisor.settings
    one, _ = check(system)
    good = one.sources.readers["orders"].events().row(0, named=True)
    place = int(good["_partition"]), int(good["_offset"])
    headers = dead_letter_headers("orders", *place, None, "nothing is wrong with it", "flink.validate")
    end = one.broker.ends("orders.dlq")[0]
    admin = AdminClient(settings.kafka.client_config())
    letters = TopicPartition("orders.dlq", 0, end)
    admin.delete_records([letters], request_timeout=180)[letters].result(180)
    orders.producer.produce("orders.dlq", b"whole", headers=headers)
    ids = Registry(settings.registry).register_all(["chats.enriched"])
    event = {
        "event_id": "nobody's", "conversation_id": "c", "dealer_id": "V0", "customer_id": None,
        "sender": "customer", "text": "who said this?", "language": "en", "intent": "other",
        "intent_score": 0.5, "sentiment": 0.0, "urgency": 0.0, "encoder": "none", "cause_id": "no chat",
        "event_time": NOON - 400 * 86_400_000,
    }  # fmt: skip
    orders.producer.produce(
        "chats.enriched", Encoder("chats.enriched", ids["chats.enriched-value"]).encode(event), "V0"
    )
    orders.flush()
    deadline = time.monotonic() + 180
    while True:
        _, report = check(system)
        kinds = {finding.kind for finding in report.findings}
        if kinds == {"wrong-letter", "missing-letter", "extra-event"} or time.monotonic() > deadline:
            break
    assert kinds == {"wrong-letter", "missing-letter", "extra-event"}, lines(report)
    missing = report.counts["missing-letter"]
    assert missing >= 3
    assert report.counts["wrong-letter"] == report.counts["extra-event"] == 1

    one, _ = check(system)
    plan = Repairer(one).plan()
    assert {(each.action, each.store, each.view) for each in plan} == {("write", "dead letters", "orders.dlq")}
    assert Repairer(one).beyond() == {"wrong-letter": 1, "extra-event": 1}
    before = one.broker.ends("orders.dlq")
    assert before == check(system)[0].broker.ends("orders.dlq"), "a plan writes nothing"
    assert all(each.done for each in Repairer(one).execute())
    assert sum(one.broker.ends("orders.dlq").values()) == sum(before.values()) + missing
    _, report = check(system)
    assert report.counts == {"wrong-letter": 1, "extra-event": 1}
    written = [each for each in dead_letters(settings.kafka, "orders") if each.stage == "flink.verify"]
    assert len(written) == missing
    assert "quantity -3 is below 0" in {each.error for each in written}
