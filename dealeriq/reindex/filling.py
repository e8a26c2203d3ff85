"""The reindex agent run until it is through with what the topics have: for a person who waits for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import TopicPartition

from connectors.kafka import KafkaUnavailableError, consumer
from connectors.whole import end_offset
from dealeriq.reindex.work import work
from dealeriq.runtime.child import die_with_parent
from dealeriq.settings import Settings
from models.embedding import OWNERS
from models.text import Encoder
from schemas.catalogue import topic
from schemas.errors import DealerIQError

__all__ = ["FillingError", "fill"]

_GROUP = "dealeriq-reindex-agent"
_LOOK_S = 1.0
_STILL = 3
_TOLD_S = 10.0
_END_S = 30.0


class FillingError(DealerIQError):
    """The reindex agent ended by itself; its own lines say why."""

    remedy = "See its lines above, mend the cause, and run it again: it goes on where it was."
    exit_code = 4


def fill(
    settings: Settings, encoder: Encoder, progress: Callable[[str], None], *, follow: bool = False
) -> dict[str, Any]:
    """Run the agent until nothing is left, or, with `follow`, until a signal; return how far it is.

    Raises FillingError, KafkaUnavailableError.
    """
    command = [sys.executable, "-m", "dealeriq.processes", "reindex-agent"]
    environment = os.environ | settings.environment() | {"DEALERIQ_METRICS_PORT": "0"}
    # Faust greets on stdout, which is for data here.
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=die_with_parent
    ) as agent:
        try:
            told, before, still = 0.0, -1, 0
            while True:
                left = _left(settings)
                still = still + 1 if left == before else 0
                before = left
                if agent.poll() is not None:
                    raise FillingError(f"the reindex agent ended with {agent.returncode}")
                if time.monotonic() - told > _TOLD_S:
                    progress(f"{left:,} records of products and documents are left to read")
                    told = time.monotonic()
                # The end of a partition may be a marker of a transaction, which nobody commits.
                if not follow and still >= _STILL:
                    still = 0
                    rest = work(settings, encoder)
                    if rest.changed == 0:
                        return {"encoder": encoder.identity, "records": rest.records, "left": 0}
                time.sleep(_LOOK_S)
        finally:
            agent.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.wait(_END_S)
            agent.kill()


def _left(settings: Settings) -> int:
    """Records that the agent has not committed yet."""
    with contextlib.closing(consumer(settings.kafka, _GROUP)) as reading:
        places = [
            TopicPartition(name, number)
            for name in OWNERS
            for number in range(settings.kafka.partitions_of(topic(name)))
        ]
        try:
            done = {(each.topic, each.partition): each.offset for each in reading.committed(places, timeout=30)}
        except Exception as error:
            raise KafkaUnavailableError(f"the position of {_GROUP} cannot be read: {error}") from error
        ends = {(each.topic, each.partition): end_offset(reading, each) for each in places}
        return sum(max(0, end - max(0, done.get(at, 0))) for at, end in ends.items())
