"""The writer against a real Redis, read back by the reader."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from dealeriq.settings import Settings
from features.keys import entity_key, field, unwrap_bytes, value_proto
from features.merge import MergedRow
from features.plan import load
from features.reader import FeatureReader
from features.tiles import CorruptBlobError, decode
from features.writer import FeatureWriter, StoreReplacedError, WriteConflictError
from tests.features.folding import tiles_of
from tests.features.test_merge import NOW, fold

PLAN = load()
VIEW = PLAN.views["dealer_feedback"]
DAY = 86_400_000


def read(settings: Settings, dealer: str, now_ms: int = NOW) -> MergedRow:
    async def once() -> MergedRow:
        connection = redis.asyncio.Redis.from_url(settings.redis.address)
        rows = await FeatureReader(connection, PLAN).read(VIEW.name, [{"dealer_id": dealer}], now_ms)
        await connection.aclose()
        return rows[0][VIEW.name]

    return asyncio.run(once())


@pytest.fixture
def writer(stack: Settings) -> Callable[..., FeatureWriter]:
    client = redis.Redis.from_url(stack.redis.address)
    return lambda **options: FeatureWriter(client, VIEW, PLAN.project, **options)


def test_repeats_and_reorders_change_nothing(stack: Settings, writer: Callable[..., FeatureWriter]) -> None:
    one = writer()
    old, new = fold([(NOW, 3)]), fold([(NOW, 3), (NOW + 1, 5)])
    for tiles, at in ((old, 1), (new, 2), (old, 1), (new, 2)):
        one.write({("writer-test",): tiles}, {(VIEW.topic, 0): at})
    assert one.positions()[VIEW.topic, 0] == 2
    assert writer().positions() == one.positions()
    assert read(stack, "writer-test").values[0] == 2
    assert read(stack, "nobody").values[0] is None


def test_a_writer_with_an_old_memory_overwrites_nothing(
    stack: Settings, writer: Callable[..., FeatureWriter]
) -> None:
    one, two = writer(), writer()
    names = [(f"guard-{i}",) for i in range(3)]
    one.load(names)
    two.load(names)
    two.write(dict.fromkeys(names[:2], fold([(NOW - DAY * 5, 1)])), {})
    # What one remembers of two of the three is old now; generators must survive the second folding.
    one.write({name: iter(fold([(NOW, 7)])) for name in names}, {("guard", 0): 9})
    assert [read(stack, *name).values[2] for name in names] == [2, 2, 1]
    assert one.positions()["guard", 0] == 9


def test_a_store_that_was_emptied_is_not_filled_from_memory(
    stack: Settings, writer: Callable[..., FeatureWriter]
) -> None:
    one = writer()
    one.write({("emptied",): fold([(NOW - DAY * 5, 1)])}, {})
    redis.Redis.from_url(stack.redis.address).delete(entity_key(VIEW, {"dealer_id": "emptied"}, PLAN.project))
    one.write({("emptied",): fold([(NOW, 1)])}, {})
    assert read(stack, "emptied").values[2] == 1


def test_a_writer_that_never_gets_through_says_so_and_moves_no_position(stack: Settings) -> None:
    client = redis.Redis.from_url(stack.redis.address)
    rival = FeatureWriter(client, VIEW, PLAN.project)

    class Contended(FeatureWriter):
        def load(self, entities: Any) -> None:
            wanted = list(entities)
            super().load(wanted)
            rival.write({name: fold([(NOW, 1)]) for name in wanted}, {})

    with pytest.raises(WriteConflictError, match="contended"):
        Contended(client, VIEW, PLAN.project).write({("contended",): fold([(NOW, 2)])}, {("contended", 0): 1})
    assert ("contended", 0) not in rival.positions()


def test_a_future_event_pushes_nothing_out_and_keeps_nothing_fresh(
    stack: Settings, writer: Callable[..., FeatureWriter]
) -> None:
    clocked = writer(clock=lambda: NOW / 1000)
    clocked.write({("future",): fold([(NOW, 1), (NOW + 20 * 365 * DAY, 1)])}, {})
    row = read(stack, "future")
    assert row.values[0] == 1
    assert row.event_time_ms == NOW
    assert read(stack, "future", NOW + 200 * DAY).statuses[0].name == "STALE"


def test_tiles_beyond_retention_are_dropped(stack: Settings, writer: Callable[..., FeatureWriter]) -> None:
    writer().write({("retired",): fold([(NOW - 300 * DAY, 1), (NOW, 1)])}, {})
    client = redis.Redis.from_url(stack.redis.address)
    key = entity_key(VIEW, {"dealer_id": "retired"}, PLAN.project)
    stored = client.hget(key, field(VIEW.name, "tiles"))
    assert decode(unwrap_bytes(stored)).hop.min() > NOW - 2 * DAY
    client.hset(key, field(VIEW.name, "tiles"), value_proto(b"damaged"))
    with pytest.raises(CorruptBlobError, match="a blob starts with"):
        read(stack, "retired")


def test_a_store_that_was_replaced_is_refused_until_its_own_position_is_read(
    stack: Settings, writer: Callable[..., FeatureWriter]
) -> None:
    one = writer()
    one.write({("replaced",): fold([(NOW, 1)])}, {(VIEW.topic, 1): 7})
    client = redis.Redis.from_url(stack.redis.address)
    client.delete(f"dealeriq:store:{VIEW.name}", f"dealeriq:position:{VIEW.name}")
    with pytest.raises(StoreReplacedError):
        one.write({("replaced",): fold([(NOW, 2)])}, {(VIEW.topic, 1): 9})
    assert writer().positions() == {}


def test_the_same_tiles_give_the_same_bytes_in_any_order_and_any_batches(stack: Settings) -> None:
    client, view, chance = (
        redis.Redis.from_url(stack.redis.address),
        PLAN.views["dealer_orders"],
        random.Random(7),
    )
    events = [
        {
            "event_id": f"e{k}", "dealer_id": "D", "product_id": f"P{k % 7}", "customer_id": f"C{k % 5}",
            "category": "X", "quantity": k % 3 + 1, "amount": k / 7, "discount": 0.0,
            "event_time": NOW - k * DAY * 3,
        }
        for k in range(60)
    ]  # fmt: skip
    # A tile knows the partitions that it has events of: the first ones know fewer.
    tiles = [
        tile._replace(positions=tuple(chance.randrange(9) for _ in range(1 + k % 3)))
        for k, tile in enumerate(tiles_of(view, events))
    ]
    blobs = set()
    for number in range(4):
        writer, name = FeatureWriter(client, view, PLAN.project, partitions=4), (f"order-{number}",)
        left = chance.sample(tiles, len(tiles))
        while left:
            some = [left.pop() for _ in range(min(len(left), chance.randrange(1, 9)))]
            bytearray(b"\xff" * chance.randrange(10_000))  # leaves something in memory
            writer.write({name: some}, {})
        key = entity_key(view, {"dealer_id": name[0]}, PLAN.project)
        blobs.add(client.hget(key, field(view.name, "tiles")))
    assert len(blobs) == 1
    assert len(decode(unwrap_bytes(blobs.pop())).hop) < len(tiles)  # some fell out of retention
