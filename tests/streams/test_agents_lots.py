"""Lots on Faust's own classes: which records they hold, and up to where is committed in any order of acks."""

import hashlib
import inspect
import random

import pytest
from aiokafka.structs import ConsumerRecord
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as faust_aiokafka
from faust.types.tuples import TP, Message
from mode.utils.queues import FlowControlQueue

from streams.agents.lots import LotApp, WholeLots

PLACE = TP("orders", 3)
REPLACED = {
    # What streams/agents/lots.py takes the place of, and what calls it, as it was when that was written. Where
    # a newer Faust differs: read the difference, see that that module's reasons still hold, note the new hash.
    faust_consumer.Consumer.getmany: "4b168d84882a",
    faust_consumer.Consumer._drain_messages: "44a2500309e8",
    faust_consumer.Consumer._add_gap: "4df2573ded7c",
    faust_consumer.Consumer._new_offset: "1d2c7ea89a7a",
    faust_consumer.Consumer._filter_committable_offsets: "dc5e9baf5d99",
    faust_consumer.Consumer._commit_offsets: "1a6979904118",
    faust_consumer.Consumer.ack: "5fcf41cf4515",
    faust_consumer.Consumer.perform_seek: "0e8c130ff4b0",
    faust_consumer.Consumer.on_partitions_revoked: "d04b7ae72c6f",
    faust_aiokafka.Consumer._to_message: "7c24f6511b2f",
    faust_aiokafka.AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f",
    Message.ack: "4751b72c4ed8",
    FlowControlQueue.put_nowait_enhanced: "f1839f43dda3",
    LotApp.__mro__[1].FlowControlQueue: "9451c49351ae",
    LotApp.__mro__[1]._new_transport: "42db531312dd",
}


@pytest.fixture
async def consumer(tmp_path):
    app = LotApp(
        "lots-test",
        broker="kafka://127.0.0.1:9",
        ConsumerScheduler=WholeLots,
        stream_buffer_maxsize=4,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=str(tmp_path),
        web_enabled=False,
        autodiscover=False,
    )
    app.topics._acking_topics.add(PLACE.topic)
    app.consumer_generation_id = 1
    return app.consumer


def record(offset):
    return ConsumerRecord(
        PLACE.topic, PLACE.partition, offset, 1_500_000_000_000, 0, b"k", b"v", None, 1, 1, ()
    )


def take(consumer, *offsets):
    """A lot, as Faust's own loop takes it: handed over, and its offset kept as what was read."""
    ((place, found),) = consumer.scheduler.iterate({PLACE: [record(each) for each in offsets]})
    lot = consumer._to_message(place, found)
    lot.incref()
    consumer._read_offset[place] = lot.offset
    return lot


def seek(consumer, position):
    consumer._read_offset[PLACE] = position
    consumer._committed_offset[PLACE] = position or None


def commit(consumer):
    """What Faust would commit now; it keeps it as committed."""
    found = consumer._filter_committable_offsets([PLACE])
    consumer._committed_offset.update(found)
    return found.get(PLACE)


async def test_a_lot_holds_what_came_and_is_acknowledged_as_one(consumer):
    seek(consumer, 100)
    lot = take(consumer, 100, 101, 104)
    assert [each.offset for each in lot.records] == [100, 101, 104]
    assert (lot.offset, lot.begin, lot.generation_id, lot.timestamp) == (104, 100, 1, 1_500_000_000)
    assert commit(consumer) is None
    assert lot.ack(consumer)
    assert commit(consumer) == 105
    assert commit(consumer) is None


async def test_a_new_group_commits_its_first_lot_wherever_the_topic_begins(consumer):
    first, second = take(consumer, 7, 9), take(consumer, 10)
    second.ack(consumer)
    assert commit(consumer) is None
    first.ack(consumer)
    assert commit(consumer) == 11


async def test_nothing_is_committed_over_a_lot_that_was_dropped(consumer):
    seek(consumer, 100)
    take(consumer, *range(100, 200))  # taken, and dropped unseen: of another generation
    take(consumer, 200)
    after = take(consumer, *range(201, 300))
    after.ack(consumer)
    assert commit(consumer) is None
    await consumer._add_gap(PLACE, 101, 199)
    assert commit(consumer) is None
    seek(consumer, 100)
    take(consumer, *range(100, 180)).ack(consumer)
    assert commit(consumer) == 180
    take(consumer, *range(180, 201)).ack(consumer)
    assert commit(consumer) == 300


async def test_what_was_fetched_before_a_position_was_sought_is_not_handed_over_twice(consumer):
    seek(consumer, 100)
    take(consumer, *range(100, 110))
    seek(consumer, 105)
    lot = take(consumer, *range(103, 108))
    assert [each.offset for each in lot.records] == [105, 106, 107]
    seek(consumer, 107)  # the position is the last offset that was handed over
    again = take(consumer, 107, 108)
    assert [each.offset for each in again.records] == [107, 108]
    again.ack(consumer)
    assert commit(consumer) == 109


@pytest.mark.parametrize("seed", range(30))
async def test_the_position_is_that_of_the_first_record_that_is_not_acknowledged(consumer, seed):
    rng = random.Random(seed)
    there = sorted(rng.sample(range(50, 400), 200))  # the rest was compacted away
    start = rng.choice([0, 50, there[20]])
    seek(consumer, start)
    left = [each for each in there if each >= start]
    open_lots, done, committed = [], set(), start
    while left or open_lots:
        if left and rng.random() < 0.5:
            size = rng.randrange(1, 12)
            open_lots.append(take(consumer, *left[:size]))
            left = left[size:]
        elif open_lots:
            lot = open_lots.pop(rng.randrange(len(open_lots)))
            lot.ack(consumer)
            done.update(each.offset for each in lot.records)
        if rng.random() < 0.3 or not (left or open_lots):
            committed = commit(consumer) or committed
            undone = [each for each in there if each >= start and each not in done]
            assert all(each >= committed for each in undone)
            read = [each.offset for lot in open_lots for each in lot.records] + left
            assert not undone or committed == start or max(e for e in done if e < min(read)) + 1 == committed
    assert committed == there[-1] + 1


def test_faust_is_as_it_was_where_it_is_replaced():
    found = {each: hashlib.sha256(inspect.getsource(each).encode()).hexdigest()[:12] for each in REPLACED}
    changed = {each.__qualname__: found[each] for each in REPLACED if found[each] != REPLACED[each]}
    assert changed == {}
