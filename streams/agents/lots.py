"""Faust's consumer, made to hand over lots: what one fetch brought of one partition, as one message.

Faust takes four asyncio tasks, two coroutines under locks and a pass through the stream for every message that
it hands over: some 13,000 a second, whatever is done with them. All of that stays, once a lot instead of once a
record; the group, rebalancing, flow control and the commits are Faust's as they were.

What of Faust is replaced, each by the way it has for drivers, and why it is right:

- The scheduler, a setting, orders what was fetched. Ours gives it in one piece a partition.
- `_to_message` makes Faust's message of what the scheduler gives. A lot has the offset of its last record, so
  Faust's own reading goes on behind it.
- Offsets that Faust finds missing in between (`_add_gap`) are the other records of the lot, or were compacted
  away, or are the marks of transactions. Faust counts a gap as acknowledged by itself; a lot instead says from
  which position it was read, so that nothing counts but what was handed over and acknowledged.
- `_new_offset`, the position to commit, moves over acknowledged lots while each begins at what is done.
- The queue of a stream never says that it is under pressure: Faust would stop to fetch, and look once a second
  whether it may again. A full queue makes the consumer wait instead, and a few lots fill it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types.tuples import TP, ConsumerMessage
from mode.utils.queues import ThrowableQueue

__all__ = ["BUFFERED", "Lot", "LotApp", "WholeLots"]

_WAIT_MS = 100
"""How long a broker may wait for the first record of a fetch.

While it waits, nothing is asked of partitions that had records here when it was sent; Faust's second and a half
of one topic's silence would be another topic's standstill.
"""

BUFFERED = 4
"""Lots that wait for the agent, at most; with the batch that it works on they are what is in memory."""


class Lot(ConsumerMessage):  # type: ignore[misc]
    """Records of one partition, in order; its offset is that of the last.

    `begin` is the position from which it was read: what is missing between it and the last is no record. None:
    nothing was committed or read before.
    """

    def __init__(self, tp: TP, records: Sequence[Any], begin: int | None, generation_id: int) -> None:
        last = records[-1]
        super().__init__(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, (), None, None,
            None, tp=tp, generation_id=generation_id,
        )  # fmt: skip
        self.records, self.begin = records, begin


class WholeLots(DefaultSchedulingStrategy):  # type: ignore[misc]
    """What was fetched, a partition at a time."""

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, list[Any]]]:
        """Yield each partition's records in one piece."""
        return ((tp, found) for tp, found in records.items() if found)


class _Thread(AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Both are read when the consumer starts.
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = _WAIT_MS
        return consumer


class LotConsumer(Consumer):  # type: ignore[misc]
    """Hands over lots, and commits behind those that are acknowledged."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._handed: dict[TP, int] = {}  # offset of the last lot
        self._begins: dict[tuple[TP, int], int | None] = {}  # of lots that are acknowledged and not committed
        super().__init__(*args, **options)

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, records: Sequence[Any]) -> Lot:
        # Faust's read offset is that of its last message, or a position that it has sought.
        begin, first = self._read_offset[tp], records[0].offset
        if begin is not None and first < begin:  # fetched before the position was sought
            # Of a lot that is old as a whole Faust itself drops the message.
            records = [each for each in records if each.offset >= begin] or records[-1:]
        elif begin is not None and first > begin == self._handed.get(tp):
            begin += 1
        self._handed[tp] = records[-1].offset
        return Lot(tp, records, begin, self.app.consumer_generation_id)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: see the module."""

    def ack(self, message: Lot) -> bool:
        self._begins[message.tp, message.offset] = message.begin
        return bool(super().ack(message))

    def _new_offset(self, tp: TP) -> int | None:
        position, counted = self._committed_offset[tp] or 0, []
        # What did not come through `ack` above is known to be next to nothing but itself.
        begins = {last: self._begins.get((tp, last), last) for last in self._acked[tp]}
        for last, begin in sorted(begins.items(), key=lambda each: each[1] or 0):
            if begin is not None and begin > position:
                break  # what lies between is not acknowledged
            position = max(position, last + 1)
            counted.append(last)
        if not counted:
            return None
        for last in counted:
            self._begins.pop((tp, last), None)
            self._acked[tp].remove(last)
        self._acked_index[tp].difference_update(counted)
        return position

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._begins = {place: begin for place, begin in self._begins.items() if place[0] not in revoked}
        await super().on_partitions_revoked(revoked)


class _Transport(Transport):  # type: ignore[misc]
    Consumer = LotConsumer


class _Queue(ThrowableQueue):  # type: ignore[misc]
    def in_pressure_high_state(self, callback: Any) -> bool:
        return False


class LotApp(faust.App):  # type: ignore[misc]
    """A Faust application whose streams yield lots; `ConsumerScheduler` has to be `WholeLots`."""

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self, loop=self.loop)

    def FlowControlQueue(self, maxsize: int | None = None, *, clear_on_resume: bool = False) -> Any:  # noqa: N802
        """The queue of a stream, as Faust makes it; it never says that it is under pressure."""
        return _Queue(maxsize=maxsize, flow_control=self.flow_control, clear_on_resume=clear_on_resume)
