"""Positions as the broker knows them: where topics begin and end, and what groups have committed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.kafka import KafkaUnavailableError, partition_counts
from connectors.settings import KafkaSettings

__all__ = ["Broker", "Ends"]

_TIMEOUT_S = 20.0
# A new topic, or a broker that starts: over in a moment.
_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)  # fmt: skip
Ends = dict[int, int]
"""Partition → offset."""
T = TypeVar("T")


class Broker:
    """Asks one cluster; every method raises KafkaUnavailableError where it does not answer."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self._admin = AdminClient(kafka.client_config() | {"log_level": 0})
        self._counts: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0 for one that is not there."""
        if topic not in self._counts:
            self._counts |= partition_counts(self.kafka)
        return self._counts.get(topic, 0)

    def ends(self, topic: str) -> Ends:
        """Return the next offset of each partition: behind the last committed record."""
        return self._offsets(topic, OffsetSpec.latest())

    def firsts(self, topic: str) -> Ends:
        """Return the oldest offset that each partition still holds."""
        return self._offsets(topic, OffsetSpec.earliest())

    def committed(self, group: str, topic: str) -> Ends:
        """Return the offsets that a consumer group has committed; partitions without one are left out."""
        wanted = [TopicPartition(topic, p) for p in range(self.partitions(topic))]
        if not wanted:
            return {}
        asked = [ConsumerGroupTopicPartitions(group, wanted)]
        found = self._ask(lambda: self._admin.list_consumer_group_offsets(asked)[group].result(_TIMEOUT_S))
        return {each.partition: each.offset for each in found.topic_partitions if each.offset >= 0}

    def beat(self, group: str) -> str:
        """Return what a view said with its newest commit: it says something new each second while it lives."""
        asked = [ConsumerGroupTopicPartitions(group)]
        found = self._ask(lambda: self._admin.list_consumer_group_offsets(asked)[group].result(_TIMEOUT_S))
        return max((each.metadata or "" for each in found.topic_partitions), default="")

    def _offsets(self, topic: str, spec: Any) -> Ends:
        wanted = {TopicPartition(topic, p): spec for p in range(self.partitions(topic))}
        if not wanted:
            return {}
        level = IsolationLevel.READ_COMMITTED

        def ask() -> Ends:
            asked = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=_TIMEOUT_S)
            return {each.partition: future.result(_TIMEOUT_S).offset for each, future in asked.items()}

        return self._ask(ask)

    def _ask(self, ask: Callable[[], T]) -> T:
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                return ask()
            except (KafkaException, TimeoutError) as error:
                passing = isinstance(error, KafkaException) and error.args[0].code() in _PASSING
                if passing and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                reason = error.args[0].str() if isinstance(error, KafkaException) else "no answer in time"
                raise KafkaUnavailableError(f"{self.kafka.address} tells no positions: {reason}") from error
