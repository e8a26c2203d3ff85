"""Reading every partition of some topics without a group: what each runner needs of a consumer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.errors import translated
from connectors.kafka import partition_counts, retrying
from connectors.log import get_logger
from connectors.settings import KafkaSettings
from streams.metrics import StageMeters

__all__ = ["Place", "fetch", "lag", "partitions", "patiently", "watermarks"]

log = get_logger()
T = TypeVar("T")
Place = tuple[str, int]

_LOOK_S = 1.0
_IDLE_S = 0.1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


def partitions(kafka: KafkaSettings, topics: Sequence[str], stage: str, stop: threading.Event) -> list[Place]:
    """Return the partitions of topics, which are waited for; none where the stage is stopped before."""
    counts: dict[str, int] = {}
    while missing := [each for each in topics if each not in counts]:
        counts = partition_counts(kafka)
        missing = [each for each in missing if each not in counts]
        if missing:
            log.warning("topics are not there yet", stage=stage, topics=missing)
            if stop.wait(_LOOK_S):
                return []
    return [(name, partition) for name in topics for partition in range(counts[name])]


def watermarks(source: Consumer, kafka: KafkaSettings, place: Place) -> tuple[int, int]:
    """Return the first offset that a partition still holds, and the one behind its last."""
    low, high = retrying(partial(source.get_watermark_offsets, TopicPartition(*place), timeout=10), kafka)
    return int(low), int(high)


def fetch(source: Consumer, most: int, wait_s: float, meters: StageMeters, *, idle: bool = True) -> list[Any]:
    """Return the next messages: what comes within `wait_s` of the first, none where none comes for a while.

    `idle`: whether there is nothing else to do; then that is up to a tenth of a second, else `wait_s`.

    Raises KafkaException for what stays wrong; what goes away is counted.
    """
    good: list[Any] = []
    messages: list[Any] = []
    if idle and wait_s < _IDLE_S:
        # Looking anew every few milliseconds takes a process some hundredths of a core, though nothing comes.
        first = source.poll(_IDLE_S)
        if first is None:
            return good
        messages.append(first)
    for message in [*messages, *source.consume(most - len(messages), wait_s)]:
        error = message.error()
        if error is None:
            good.append(message)
        elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise KafkaException(error)
        elif error.code() != KafkaError._PARTITION_EOF:
            meters.error(error.name())
    return good


def lag(source: Consumer, positions: Mapping[Place, int], meters: StageMeters) -> None:
    """Report how far each partition's end is beyond the position, as far as the consumer has heard."""
    for (topic, partition), offset in positions.items():
        _, high = source.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        if high >= 0:
            meters.lag(topic, partition, max(high - offset, 0))


def patiently(
    action: Callable[[], T],
    retried: tuple[type[Exception], ...],
    stage: str,
    meters: StageMeters,
    wait: Callable[[float], bool],
) -> T:
    """Do what a store may refuse for a while, again and again.

    `wait` waits for so many seconds, and says whether to give up: then the last refusal is raised.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return action()
        except retried as failure:
            meters.error(failure)
            known = translated(failure)
            told = known.told if known else str(failure)
            log.warning("store away, trying again", stage=stage, error=told, wait_s=wait_s)
            if wait(wait_s):
                raise
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
