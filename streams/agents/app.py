"""The Faust application around one stage: consuming, batching and acknowledging; all else is the worker's.

How Faust is used, each for a reason that was measured or read in its source:

- `noack`: Faust's own `take` acknowledges its batch in a `finally`, also when the agent failed or was cancelled
  in the middle of it, and those events would be lost. Here a lot is acknowledged after Kafka has what came of
  it.
- its consumer hands over lots (`streams.agents.lots`), and batches are made of whole lots.
- records of aborted transactions are not read (the importers are transactional); Faust reads them unless it
  runs its own exactly-once mode, which has open data-loss bugs.
- no tables, no leader topic, no topics declared by Faust, no web server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import faust

from connectors.errors import translated
from connectors.log import get_logger
from connectors.settings import KafkaSettings
from streams.agents.lots import BUFFERED, Lot, LotApp, WholeLots
from streams.agents.refresh import Refresher
from streams.agents.settings import AgentSettings
from streams.agents.worker import BatchWorker, StoppedError
from streams.metrics import StageMeters

__all__ = ["Host", "build"]

_log = get_logger(__name__)
_LOOK_S = 2.0  # how often it is looked whether a refresh is due
_SESSION_S = 6.0  # the least that a broker allows by default: after kill -9 another worker takes over in 6 s


class Host:
    """Feeds a worker from Faust; remembers the error that ended it, if one did."""

    def __init__(
        self,
        worker: BatchWorker,
        settings: AgentSettings,
        meters: StageMeters,
        refresher: Refresher | None = None,
    ) -> None:
        self.worker, self.refresher = worker, refresher
        self.failure: BaseException | None = None
        self._ended = False
        self._settings = settings
        self._meters = meters
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=worker.stage.name)

    async def run(self, stream: Any) -> None:
        """The agent. A batch is begun while the one before it is derived; a dealer's events stay in order."""
        loop = asyncio.get_running_loop()
        size, within = self._settings.batch_size, self._settings.batch_within_s
        lots = stream.noack()
        before: asyncio.Task[None] | None = None
        try:
            async with aclosing(_batches(lots.events(), size, within)) as batches:
                async for events in batches:
                    messages = [record for event in events for record in event.message.records]
                    if self.refresher is not None:
                        self.refresher.came(messages)
                    with self._ending():
                        begun = await loop.run_in_executor(self._thread, self.worker.begin, messages)
                        if before is not None:
                            await before
                    if self._ended:
                        return
                    before = asyncio.create_task(self._acknowledge(lots, events, begun))
        except asyncio.CancelledError:
            self.worker.stop()
            raise
        finally:
            if before is not None:
                before.cancel()

    async def _acknowledge(self, lots: Any, events: Sequence[Any], begun: Future[None]) -> None:
        """Acknowledge a batch when it is through."""
        with self._ending():
            await asyncio.wrap_future(begun)
            for event in events:
                await lots.ack(event)
            self._lag(lots.app.consumer, [event.message for event in events])

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Let the process end where a batch fails; nothing of it is acknowledged.

        Going on would leave a hole before which no position moves. The supervisor starts it where it was.
        """
        try:
            yield
        except StoppedError:
            self._ended = True
        except Exception as error:
            _log.exception("agent_failed", stage=self.worker.stage.name)
            self._meters.error(error)
            self._ended, self.failure = True, error
            os.kill(os.getpid(), signal.SIGTERM)

    async def refresh(self, assigned: Callable[[], set[Any]]) -> None:
        """Look again at the partitions that are due, a few records between any two batches."""
        refresher = self.refresher
        if refresher is None:
            return
        loop, began, records = asyncio.get_running_loop(), time.monotonic(), 0
        own = {(each.topic, each.partition) for each in assigned()}
        try:
            places = await loop.run_in_executor(None, refresher.due, own)
            if not places:
                return
            lots = refresher.lots(places)
            while lot := await loop.run_in_executor(None, next, lots, None):
                await loop.run_in_executor(self._thread, self._look_again, refresher, lot)
                records += len(lot)
                if not places.keys() <= {(each.topic, each.partition) for each in assigned()}:
                    return  # another worker's now; it begins again
            seconds = time.monotonic() - began
            await loop.run_in_executor(None, refresher.finish, places, records, seconds)
            _log.info("refreshed", stage=self.worker.stage.name, records=records, seconds=round(seconds, 1))
        except StoppedError:
            return
        except Exception as error:  # changes go on; the refresh begins again with the next look
            known = translated(error)
            self._meters.error(error)
            _log.warning(
                "not_refreshed", stage=self.worker.stage.name, error=known.told if known else repr(error)
            )

    def _look_again(self, refresher: Refresher, lot: Sequence[Any]) -> None:
        if left := refresher.still(lot):
            self.worker.process(left, live=False)

    def close(self) -> None:
        """Wait for the batch that is running; without services it gives up at once."""
        self.worker.stop()
        self._thread.shutdown(wait=True)
        self.worker.close()

    def _lag(self, consumer: Any, lots: Sequence[Lot]) -> None:
        for tp, offset in {lot.tp: lot.offset for lot in lots}.items():
            try:
                end = consumer.highwater(tp)
            except Exception:  # the partition has just been given to another worker
                continue
            if end is not None:
                self._meters.lag(tp.topic, tp.partition, max(0, end - offset - 1))


async def _batches(events: AsyncIterator[Any], size: int, within: float) -> AsyncGenerator[list[Any], None]:
    """Yield lots together that come within so many seconds of the first and hold at most `size` records.

    One lot is never cut, so none may hold more.
    """
    loop, coming = asyncio.get_running_loop(), asyncio.ensure_future(anext(events))
    try:
        while True:
            batch = [await coming]
            coming = asyncio.ensure_future(anext(events))
            left, until = size - len(batch[0].message.records), loop.time() + within
            while left > 0:
                await asyncio.wait({coming}, timeout=max(0.0, until - loop.time()))
                if not coming.done() or (left := left - len(coming.result().message.records)) < 0:
                    break
                batch.append(coming.result())
                coming = asyncio.ensure_future(anext(events))
            yield batch
    except StopAsyncIteration:
        return  # the stream has ended
    finally:
        coming.cancel()


def build(host: Host, kafka: KafkaSettings, settings: AgentSettings, data_dir: Path) -> faust.App:
    """Return the Faust application of one agent; its consumer group is `dealeriq-<stage>`."""
    stage = host.worker.stage
    app = LotApp(
        f"dealeriq-{stage.name}",
        broker=[f"kafka://{each.strip()}" for each in kafka.address.split(",")],
        broker_credentials=_credentials(kafka),
        broker_client_id=kafka.client_id,
        broker_session_timeout=_SESSION_S,
        broker_heartbeat_interval=1.5,
        broker_commit_interval=1.0,
        broker_max_poll_records=settings.batch_size,  # the most of a lot: a batch takes it whole
        ConsumerScheduler=WholeLots,
        stream_buffer_maxsize=BUFFERED,
        consumer_auto_offset_reset="earliest",
        datadir=str(data_dir / "faust"),
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )
    topic = app.topic(*stage.sources, key_type=bytes, value_type=bytes, allow_empty=True)
    app.agent(topic, name=stage.name)(host.run)
    if host.refresher is not None:

        @app.timer(interval=_LOOK_S)  # type: ignore[untyped-decorator]
        async def refresh() -> None:
            await host.refresh(app.consumer.assignment)

    return app


def _credentials(kafka: KafkaSettings) -> Any:
    protocol = kafka.security_protocol
    context = kafka.ssl_context() if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        password = kafka.sasl_password.get_secret_value() if kafka.sasl_password else None
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=password,
            mechanism=kafka.sasl_mechanism or "PLAIN",
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
