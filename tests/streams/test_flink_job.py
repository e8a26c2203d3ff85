"""The tiles job on real Kafka, registry and Flink, against a recomputation that shares no code with it."""

from __future__ import annotations

import math
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.runtime.jars import cache_dir, ensure
from dealeriq.runtime.java import java
from dealeriq.settings import Settings
from features.plan import Plan, ViewPlan, load
from schemas.codec import Decoder, Encoder
from schemas.envelope import parse_headers
from streams.flink.job import FlinkTarget, JobHandle, status, stop, submit
from streams.flink.spec import Timing

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

PARTITIONS = 4
TRACE = "00-%032x-00f067aa0ba902b7-01"
NOON = 1_500_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000


@dataclass
class Stage:
    """One job on topics of its own, and everything that was sent to it."""

    settings: Settings
    target: FlinkTarget
    plan: Plan
    names: dict[str, str]
    ids: dict[str, int]
    prefix: str
    handles: list[JobHandle] = field(default_factory=list)
    valid: list[tuple[dict[str, Any], int, int]] = field(default_factory=list)
    rejected: list[tuple[int, int, bytes | None]] = field(default_factory=list)

    def submit(self) -> list[JobHandle]:
        self.handles = submit(
            self.target,
            self.plan,
            schema_ids=self.ids,
            kafka=self.settings.kafka.flink_properties(),
            registry={"url": self.settings.registry.address},
            parallelism=2,
            timing=Timing(checkpoint_ms=500),
            names=self.names,
            prefix=self.prefix,
        )
        return self.handles

    def send(self, orders: list[dict[str, Any]], junk: list[bytes | None] = ()) -> None:  # type: ignore[assignment]
        """Produce the orders, junk between them, and note where each landed."""
        encoder = Encoder("orders", self.ids["orders-value"])
        producer = Producer(self.settings.kafka.client_config() | {"linger.ms": 5})

        def note(order: dict[str, Any] | None, value: bytes | None) -> Callable[[Any, Any], None]:
            def delivered(error: Any, message: Any) -> None:
                assert error is None, error
                if order is None:
                    self.rejected.append((message.partition(), message.offset(), value))
                else:
                    self.valid.append((order, message.partition(), message.offset()))

            return delivered

        every = max(1, len(orders) // (len(junk) + 1))
        waiting = list(junk)
        for i, order in enumerate(orders):
            value = encoder.encode(order)
            trace = [("traceparent", TRACE % i)] if i % 2 else []
            producer.produce(
                self.names["orders"], value, order["dealer_id"], headers=trace, on_delivery=note(order, value)
            )
            producer.poll(0)
            if i % every == every - 1 and waiting:
                value_ = waiting.pop()
                producer.produce(
                    self.names["orders"], value_, "d1", headers=[("who", b"me")], on_delivery=note(None, value_)
                )
        assert producer.flush(20) == 0
        assert not waiting

    def read(self, name: str) -> list[Any]:
        """Every record of a topic, from the first to the last."""
        consumer = Consumer(self.settings.kafka.client_config() | {"group.id": uuid.uuid4().hex})
        try:
            found = []
            for partition in range(PARTITIONS):
                place = TopicPartition(self.names[name], partition, 0)
                _, end = consumer.get_watermark_offsets(place, timeout=10)
                consumer.assign([place])
                while end and (not found or found[-1].partition() != partition or found[-1].offset() < end - 1):
                    message = consumer.poll(10)
                    assert message is not None, f"{name}[{partition}] ends before {end}"
                    assert message.error() is None, message.error()
                    found.append(message)
            return found
        finally:
            consumer.close()

    def tiles(self, view: ViewPlan) -> dict[tuple[Any, ...], dict[str, Any]]:
        """The newest value of every key of the view's topic."""
        registry = Registry(self.settings.registry)
        keys = Decoder.of_topic(view.topic, registry.schema, key=True)
        values = Decoder.of_topic(view.topic, registry.schema)
        newest = {}
        for message in self.read(view.topic):
            key = keys.decode(message.key())
            newest[tuple(key.values())] = values.decode(message.value())
        return newest

    def settled(self, timeout_s: float = 300) -> None:
        """Wait until every view's tiles are what a recomputation says, or fail with the first difference."""
        deadline = time.monotonic() + timeout_s
        while True:
            differences = [
                difference
                for view in self.plan.views.values()
                for difference in differing(self.tiles(view), recompute(view, self.valid, self.plan))
            ]
            if not differences:
                return
            if time.monotonic() > deadline:
                pytest.fail(f"{len(differences)} differences: {differences[:3]}; job {self.state()}")
            time.sleep(0.5)

    def counted(self, name: str, wanted: int) -> int:
        """A counter of the job, once it is at least what is wanted: Flink looks at its metrics every 10 s."""
        deadline = time.monotonic() + 180
        while (now := self.state()["counters"].get(name, 0)) < wanted and time.monotonic() < deadline:
            time.sleep(0.5)
        return int(now)

    def state(self) -> dict[str, Any]:
        return status(self.target, self.handles[0])


def recompute(
    view: ViewPlan, events: list[tuple[dict[str, Any], int, int]], plan: Plan
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The tiles of some events, the slow and plain way. Positions hold every folded event but repeats."""
    folded: dict[tuple[Any, ...], list[tuple[dict[str, Any], int, int]]] = {}
    seen: set[str] = set()
    for event, partition, offset in sorted(events, key=lambda each: (each[1], each[2])):
        if event["event_id"] in seen:
            continue
        seen.add(event["event_id"])
        for grain in view.grains_ms:
            hop = event["event_time"] // grain * grain
            key = (*(event[column] for column in view.entity), grain // 1000, hop)
            folded.setdefault(key, []).append((event, partition, offset))
    newest: dict[tuple[Any, ...], int] = {}
    for event, _, _ in events:
        entity = tuple(event[column] for column in view.entity)
        newest[entity] = max(newest.get(entity, 0), event["event_time"])
    # While an entity's newest event lies in a coarse tile, only the tile's parts are sent.
    return {
        key: tile(view, members, plan.distinct_precision)
        for key, members in folded.items()
        if key[-2] * 1000 == view.grains_ms[0] or key[-1] + key[-2] * 1000 <= newest[key[:-2]]
    }


def tile(view: ViewPlan, members: list[tuple[dict[str, Any], int, int]], precision: int) -> dict[str, Any]:
    out: dict[str, Any] = {"n": len(members), "max_event_time": max(e["event_time"] for e, _, _ in members)}
    positions = [-1] * (1 + max(partition for _, partition, _ in members))
    for _, partition, offset in members:
        positions[partition] = max(positions[partition], offset)
    out["positions"] = positions
    for column in view.columns:
        present = [(e[column.column], e, p, o) for e, p, o in members if e[column.column] is not None]
        for partial in column.partials:
            name = f"{column.column}_{partial}"
            values = [value for value, _, _, _ in present]
            if partial == "distinct":
                out[name] = coupons(values, precision)
            elif not values:
                out[name] = None
            elif partial == "last":
                value, e, _, _ = max(present, key=lambda each: (each[1]["event_time"], each[2], each[3]))
                out[name], out[f"{name}_time"] = value, e["event_time"]
            else:
                fold: Callable[[list[Any]], float] = {
                    "sum": math.fsum, "sumsq": lambda v: math.fsum(x * x for x in v), "min": min, "max": max
                }[partial]  # fmt: skip
                out[name] = fold(values)
    return out


def coupons(values: list[str], precision: int) -> bytes:
    ranks: dict[int, int] = {}
    for value in values:
        bits = f"{xxhash.xxh64_intdigest(value.encode()):064b}"
        rest = bits[precision:]
        rank = len(rest) - len(rest.lstrip("0")) + 1
        bucket = int(bits[:precision], 2)
        ranks[bucket] = max(ranks.get(bucket, 0), rank)
    return np.array(sorted(b << 6 | r for b, r in ranks.items()), dtype="<u4").tobytes()


def differing(
    got: dict[tuple[Any, ...], dict[str, Any]], wanted: dict[tuple[Any, ...], dict[str, Any]]
) -> Iterator[tuple[Any, ...]]:
    for key in got.keys() | wanted.keys():
        have, want = got.get(key), wanted.get(key)
        if have is None or want is None:
            yield key, "missing" if have is None else "unexpected"
            continue
        for name, value in want.items():
            if have[name] != value:  # to the last bit: sums are exact, in whatever order they were made
                yield key, name, have[name], value


def order(i: int, rng: random.Random, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{i}",
        "order_id": f"o{i // 3}",
        "line": i % 3,
        "dealer_id": f"d{rng.randrange(5)}",
        "customer_id": rng.choice([None, *(f"c{n}" for n in range(40))]),
        "product_id": f"p{rng.randrange(12)}",
        "category": rng.choice(["GROCERY", "2:ÄPFEL:", "FUEL"]),
        "brand": None,
        "quantity": rng.randrange(9),
        # cents mostly; sums of the others need every digit
        "amount": rng.choice([round(rng.uniform(0, 80), 2)] * 8 + [rng.uniform(0, 1e-9), 9_999_999.99]),
        "discount": 0.25,
        "currency": "USD",
        "channel": "store",
        # up to three quarters of an hour late, so that no hop comes in order
        "event_time": NOON + i * 500 - rng.randrange(2_700_000),
    } | changes


@pytest.fixture(scope="module")
def stage(flink: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    whole = load()
    views = {name: view for name, view in whole.views.items() if view.source_topic == "orders"}
    plan = Plan(whole.project, whole.distinct_precision, views, {})
    tag = uuid.uuid4().hex[:8]
    topics = ["orders", "orders.dlq", *(view.topic for view in views.values())]
    names = {name: f"{tag}.{name}" for name in topics}
    admin = AdminClient(flink.kafka.client_config())
    for created in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names.values()]).values():
        created.result(20)
    ids = Registry(flink.registry).register_all(["orders", *(view.topic for view in views.values())])
    assert flink.flink.url is not None
    assert flink.flink.lib_dir is not None
    folder = tmp_path_factory.mktemp("flink")
    target = FlinkTarget(
        url=flink.flink.url,
        lib_dir=Path(flink.flink.lib_dir),
        java=java(),
        compiler=ensure("tools")[0],
        cache=cache_dir() / "flink",
        checkpoint_dir=(folder / "checkpoints").as_uri(),
        state_dir=folder / "state",
    )
    running = Stage(flink, target, plan, names, ids, f"{tag}-")
    running.submit()
    yield running
    from streams.flink.rest import FlinkRest

    for handle in running.handles:
        FlinkRest(target.url).cancel(handle.job_id)


def test_late_events_merge_duplicates_count_once_and_what_is_bad_leaves(stage: Stage) -> None:
    rng = random.Random(7)
    orders = [order(i, rng) for i in range(1500)]
    repeats = [dict(each) for each in rng.sample(orders, 200)]
    encoder = Encoder("orders", stage.ids["orders-value"])
    good = encoder.encode(orders[0])
    junk: list[bytes | None] = [
        b"not avro at all",
        None,
        good[:-3],
        good + b"\x00",
        b"\x00" + (987_654).to_bytes(4, "big") + good[5:],
        encoder.encode(order(9001, rng, quantity=-3)),
        encoder.encode(order(9002, rng, event_time=0)),
        encoder.encode(order(9003, rng, event_time=7_258_118_400_000)),
        encoder.encode(order(9004, rng, amount=float("nan"))),
        encoder.encode(order(9005, rng, currency="dollars")),
        encoder.encode(order(9006, rng, dealer_id="")),
    ]
    stage.send(orders + repeats, junk)
    stage.settled()
    assert stage.counted("events", 1500) == 1500
    assert stage.counted("duplicates", 200) == 200
    assert stage.counted("dead_letters", len(junk)) == len(junk)

    letters = stage.read("orders.dlq")
    sent = Counter(stage.rejected)
    got = Counter()
    for letter in letters:
        headers = dict(letter.headers())
        assert headers["who"] == b"me"
        assert headers["dlq_topic"].decode() == stage.names["orders"]
        assert headers["dlq_stage"] in (b"flink.decode", b"flink.validate")
        assert headers["dlq_error"]
        got[int(headers["dlq_partition"]), int(headers["dlq_offset"]), letter.value()] += 1
    assert got == sent
    errors = b"\n".join(dict(letter.headers())["dlq_error"] for letter in letters)
    assert b"quantity is -3" in errors
    assert b"987654" in errors


def test_a_backlog_is_folded_before_it_is_sent(stage: Stage) -> None:
    rng, count = random.Random(5), 120
    encoder, view = Encoder("orders", stage.ids["orders-value"]), stage.plan.views["dealer_orders"]
    producer = Producer(stage.settings.kafka.client_config() | {"linger.ms": 0})

    def delivered(error: Any, message: Any) -> None:
        assert error is None, error
        stage.valid.append((sent[message.value()], message.partition(), message.offset()))

    sent = {}
    for i in range(count):  # six seconds of them, each produced a minute ago: the job is behind
        late = order(90_000 + i, rng, dealer_id="behind", event_time=NOON + i)
        value = encoder.encode(late)
        sent[value] = late
        old = time.time_ns() // 1_000_000 - 60_000
        producer.produce(stage.names["orders"], value, "behind", timestamp=old, on_delivery=delivered)
        producer.poll(0)
        time.sleep(0.05)  # the pace of what comes in
    assert producer.flush(30) == 0
    stage.settled()
    decoder = Decoder.of_topic(view.topic, Registry(stage.settings.registry).schema)
    tiles = [decoder.decode(message.value()) for message in stage.read(view.topic)]
    states = [tile["n"] for tile in tiles if tile["dealer_id"] == "behind" and tile["grain"] == 60]
    assert states == sorted(states)
    assert states[-1] == count
    # The batches alone, of a quarter second each, would have made two dozen.
    assert len(states) <= 12


def test_an_entitys_tiles_come_in_order_from_one_partition_in_an_envelope(stage: Stage) -> None:
    rng = random.Random(6)
    stage.send([order(i, rng) for i in range(10_000, 10_400)])
    stage.settled()
    registry = Registry(stage.settings.registry)
    for view in stage.plan.views.values():
        values = Decoder.of_topic(view.topic, registry.schema)
        partition_of: dict[tuple[str, ...], int] = {}
        counts: dict[tuple[Any, ...], int] = {}
        traces = set()
        for message in stage.read(view.topic):
            tile = values.decode(message.value())
            entity = tuple(tile[column] for column in view.entity)
            assert partition_of.setdefault(entity, message.partition()) == message.partition()
            key = (*entity, tile["grain"], tile["hop"])
            assert tile["n"] > counts.get(key, 0), "an older state came after a newer one"
            counts[key] = tile["n"]
            envelope = parse_headers(message.headers())
            assert envelope.unreadable == ()
            assert envelope.event_id == f"{xxhash.xxh64_intdigest(message.value()):016x}"
            assert envelope.type == stage.names[view.topic]
            assert envelope.time_ms == tile["max_event_time"]
            assert envelope.subject == "\x1f".join(entity)
            if envelope.traceparent:
                trace, span = envelope.traceparent.split("-")[1:3]
                assert span != TRACE.split("-")[2]
                traces.add(int(trace, 16))
        assert traces
        assert max(traces) < 2_000, "a trace that no order had"
        assert len(set(partition_of.values())) > 1


def test_killed_taskmanager_loses_and_repeats_nothing(stage: Stage, supervisor: Supervisor) -> None:
    rng = random.Random(8)
    orders = [order(i, rng) for i in range(20_000, 22_000)]
    stage.send(orders[:1000])
    deadline = time.monotonic() + 180
    while stage.state()["checkpoint"] is None and time.monotonic() < deadline:
        time.sleep(0.2)
    stage.send(orders[1000:1500])
    pid = next(each.pid for each in supervisor.status() if each.name == "flink-taskmanager")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    stage.send(orders[1500:])
    stage.settled()


def test_stopped_job_goes_on_from_its_savepoint(stage: Stage) -> None:
    savepoint = stop(stage.target, stage.handles[0])
    rng = random.Random(9)
    before = [dict(each) for each, _, _ in stage.valid[:300]]
    stage.send(before + [order(i, rng) for i in range(30_000, 30_300)])
    resumed = stage.submit()
    assert [each.resumed_from.rstrip("/").rpartition("/")[2] for each in resumed if each.resumed_from] == [
        savepoint.rstrip("/").rpartition("/")[2]
    ]
    stage.settled()
    assert stage.counted("duplicates", 300) == 300
    assert [each.job_id for each in stage.submit()] == [each.job_id for each in resumed]
