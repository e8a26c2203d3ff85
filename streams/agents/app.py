"""The Faust application around one stage: consuming, batching and acknowledging; all else is the worker's.

How Faust is used, each for a reason that was measured or read in its source:

- `noack_take`: Faust's own `take` acknowledges its batch in a `finally`, also when the agent failed or was
  cancelled in the middle of it, and those events would be lost. Here an event is acknowledged after Kafka has
  what came of it.
- records of aborted transactions are not read (the importers are transactional); Faust reads them unless it
  runs its own exactly-once mode, which has open data-loss bugs.
- no tables, no leader topic, no topics declared by Faust, no web server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from connectors.errors import translated
from connectors.settings import KafkaSettings
from streams.agents.refresh import Refresher
from streams.agents.settings import AgentSettings
from streams.agents.worker import BatchWorker, StoppedError
from streams.metrics import StageMeters

__all__ = ["Host", "build"]

_log = structlog.get_logger(__name__)
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
        self._settings = settings
        self._meters = meters
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=worker.stage.name)

    async def run(self, stream: Any) -> None:
        """The agent. One batch at a time, so that one dealer's events stay in order."""
        loop = asyncio.get_running_loop()
        size, within = self._settings.batch_size, self._settings.batch_within_s
        async for events in stream.noack_take(size, within=within):
            messages = [event.message for event in events]
            if self.refresher is not None:
                for each in messages:
                    self.refresher.came(each.topic, each.key)
            try:
                await loop.run_in_executor(self._thread, self.worker.process, messages)
            except StoppedError:
                return
            except asyncio.CancelledError:
                self.worker.stop()
                raise
            except Exception as error:
                # Nothing of this batch is acknowledged. Going on would leave a hole before which no position
                # moves, so the process ends, and its supervisor starts it where it was.
                _log.exception("agent_failed", stage=self.worker.stage.name)
                self._meters.error(error)
                self.failure = error
                os.kill(os.getpid(), signal.SIGTERM)
                return
            for event in events:
                await stream.ack(event)
            self._lag(stream.app.consumer, messages)

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

    def _lag(self, consumer: Any, messages: Sequence[Any]) -> None:
        for tp, offset in {message.tp: message.offset for message in messages}.items():
            try:
                end = consumer.highwater(tp)
            except Exception:  # the partition has just been given to another worker
                continue
            if end is not None:
                self._meters.lag(tp.topic, tp.partition, max(0, end - offset - 1))


def build(host: Host, kafka: KafkaSettings, data_dir: Path) -> faust.App:
    """Return the Faust application of one agent; its consumer group is `dealeriq-<stage>`."""
    stage = host.worker.stage
    app = _App(
        f"dealeriq-{stage.name}",
        broker=[f"kafka://{each.strip()}" for each in kafka.address.split(",")],
        broker_credentials=_credentials(kafka),
        broker_client_id=kafka.client_id,
        broker_session_timeout=_SESSION_S,
        broker_heartbeat_interval=1.5,
        broker_commit_interval=1.0,
        broker_max_poll_records=1_000,
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


class _ReadCommittedThread(AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # read when the consumer starts
        return consumer


class _Consumer(Consumer):  # type: ignore[misc]
    def _new_consumer_thread(self) -> Any:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(Transport):  # type: ignore[misc]
    Consumer = _Consumer


class _App(faust.App):  # type: ignore[misc]
    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self, loop=self.loop)


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
