"""Kafka: producers and consumers as this house wants them, topics as declared, and dead letters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Producer as _Producer

from connectors.errors import KafkaRefusedError, KafkaUnavailableError, translated
from connectors.settings import KafkaSettings
from schemas.catalogue import CATALOGUE, MAX_MESSAGE_BYTES, Topic, topic
from schemas.errors import ContractError

__all__ = [
    "KafkaRefusedError",
    "KafkaUnavailableError",
    "MessageTooLargeError",
    "PartitionMismatchError",
    "Producer",
    "consumer",
    "dead_letter",
    "dead_letter_headers",
    "ensure_topics",
    "partition_counts",
    "producer",
    "require_access",
    "retrying",
    "without_dead_letter_headers",
]

Headers = list[tuple[str, bytes]]
_T = TypeVar("_T")
_DLQ_LIMIT = MAX_MESSAGE_BYTES["dlq"]
_LIMIT = MAX_MESSAGE_BYTES["records"]
_OVERHEAD = 4_096  # key, headers and the batch's own bytes also count against the topic's limit


class PartitionMismatchError(ContractError):
    """A topic has another number of partitions than declared.

    Keys would land on other partitions than positions and Flink's jobs expect, so nothing is changed by itself.
    """

    remedy = (
        "Create a topic of the declared size and replay into it, or say the size that it has in the setting "
        "kafka.partitions."
    )


class MessageTooLargeError(ContractError):
    """A message is larger than its topic takes. Nothing was produced."""

    remedy = "Shorten the record (long texts belong in documents, split in parts), or raise the topic's limit."


class Producer(_Producer):  # type: ignore[misc]
    """confluent-kafka's producer that refuses what a topic would not take, and waits when its queue is full."""

    def produce(self, topic: str, value: bytes | None = None, *args: Any, **kwargs: Any) -> None:
        """Queue a message, as `confluent_kafka.Producer.produce`.

        Raises MessageTooLargeError with the topic's limit. A full queue is backpressure: deliveries are served
        until there is room.
        """
        if value is not None and len(value) > _LIMIT - _OVERHEAD and len(value) > _limit(topic) - _OVERHEAD:
            raise _too_large(topic, len(value))
        while True:
            try:
                super().produce(topic, value, *args, **kwargs)
                return
            except BufferError:
                self.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise _too_large(topic, len(value or b"")) from error
                raise


def producer(settings: KafkaSettings, **overrides: Any) -> Producer:
    """Return an idempotent producer that waits for all replicas.

    `overrides` are librdkafka settings with underscores for dots (`linger_ms=0`, `transactional_id="x"`).
    """
    return Producer(
        settings.client_config()
        | {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": 5,
            "batch.num.messages": 20_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
            "message.max.bytes": _DLQ_LIMIT,
            # Murmur2 as Java clients and aiokafka do it: the same key, the same partition, whoever writes.
            "partitioner": "murmur2_random",
        }
        | _dotted(overrides)
    )


def consumer(settings: KafkaSettings, group: str, **overrides: Any) -> Consumer:
    """Return a consumer of committed records that commits only when told, from the earliest record at first.

    `overrides` are as for `producer`. No static membership: a broker that was killed may remember an older
    instance and fence the living one for good.
    """
    config = settings.client_config() | {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 2_000,
        # Nothing is asked of a partition while a fetch without it is held: docs/decisions/0027.
        "fetch.wait.max.ms": 200,
        "queued.min.messages": 5_000,  # of each partition; a message takes some 700 bytes while it waits
        "fetch.max.bytes": 4 * _DLQ_LIMIT,
        "max.partition.fetch.bytes": 4_194_304,
    }
    return Consumer(config | _dotted(overrides))


def partition_counts(settings: KafkaSettings, timeout_s: float = 15.0) -> dict[str, int]:
    """Return the number of partitions of every topic on the cluster.

    Raises KafkaUnavailableError, KafkaRefusedError.
    """
    admin = _Admin(settings)
    return retrying(lambda: admin.counts(timeout_s), settings, attempts=1)


def require_access(settings: KafkaSettings, timeout_s: float = 10.0) -> None:
    """Raise KafkaRefusedError where the brokers answer and would not have us.

    Clients go on trying for ever, which is right for a broker that is away, and silent for a wrong password.
    Brokers that are away are no error here.
    """
    admin = _Admin(settings)
    with contextlib.suppress(KafkaUnavailableError):
        retrying(lambda: admin.counts(timeout_s), settings, attempts=1)


def ensure_topics(
    settings: KafkaSettings,
    topics: Iterable[Topic | str] | None = None,
    replication: int | None = None,
    timeout_s: float = 30.0,
) -> list[str]:
    """Create the topics that are missing (all of the catalogue by default); return the names created.

    Partitions are as declared, or as `kafka.partitions` says. With three replicas a topic takes a write
    only while two are in step, so that no acknowledged record is on one broker alone. Safe to repeat and to run
    from several processes at once. Raises PartitionMismatchError, naming each topic whose partitions differ,
    before anything is created; KafkaUnavailableError, KafkaRefusedError.
    """
    from confluent_kafka.admin import NewTopic

    named = [topic(each) if isinstance(each, str) else each for each in topics or CATALOGUE.values()]
    wanted = list({each.name: each for each in named}.values())  # the client dies of a topic that comes twice
    admin = _Admin(settings)
    found = retrying(lambda: admin.counts(timeout_s), settings, attempts=1)
    counts = {each.name: settings.partitions_of(each) for each in wanted}
    differ = [name for name, count in counts.items() if found.get(name, count) != count]
    if differ:
        words = ", ".join(f"{name} has {found[name]} and {counts[name]} declared" for name in differ)
        raise PartitionMismatchError(f"partitions differ from what is declared: {words}")
    missing = [each for each in wanted if each.name not in found]
    if not missing:
        return []
    copies = settings.replication if replication is None else replication
    safe = {"min.insync.replicas": str((copies + 1) // 2)} if copies > 1 else {}
    new = [NewTopic(t.name, counts[t.name], copies, config=t.config | safe) for t in missing]
    created = []
    for name, future in admin.client.create_topics(new, operation_timeout=timeout_s).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ContractError(
                    f"topic {name} cannot be created: {error.args[0].str()}",
                    remedy="Check the cluster's rights and kafka.replication (at most the number of brokers).",
                ) from error
    _wait_for(admin, {each.name for each in missing}, timeout_s)
    return created


class _Message(Protocol):
    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...


def dead_letter(
    producer: Producer,
    message: _Message,
    error: BaseException | str,
    stage: str,
    on_delivery: Callable[..., None] | None = None,
) -> None:
    """Queue `message` for `<topic>.dlq`: original key, value and headers, and why, where and when in `dlq_*`
    headers.

    The caller flushes (or commits its transaction) before it moves its position past the message. `stage`
    names who could not read it.
    """
    name = str(message.topic())
    headers = dead_letter_headers(
        name, int(message.partition() or 0), int(message.offset() or 0), message.headers(), error, stage
    )
    more = {} if on_delivery is None else {"on_delivery": on_delivery}
    producer.produce(f"{name}.dlq", message.value(), key=message.key(), headers=headers, **more)


def dead_letter_headers(
    topic_name: str,
    partition: int,
    offset: int,
    original: Iterable[tuple[str, bytes | None]] | None,
    error: BaseException | str,
    stage: str,
) -> Headers:
    """Return the headers of a dead letter, for clients other than confluent-kafka.

    `dlq_topic`, `dlq_partition`, `dlq_offset`: the source position; `dlq_error`: one sentence; `dlq_stage`;
    `dlq_time`: wall clock, ms since the epoch.
    """
    reason = error if isinstance(error, str) else (str(error) or type(error).__name__)
    return [
        *without_dead_letter_headers(original),
        ("dlq_error", reason.encode(errors="replace")[:4_000]),
        ("dlq_topic", topic_name.encode()),
        ("dlq_partition", b"%d" % partition),
        ("dlq_offset", b"%d" % offset),
        ("dlq_stage", stage.encode()),
        ("dlq_time", b"%d" % (time.time_ns() // 1_000_000)),
    ]


def without_dead_letter_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """Return the headers that the message had before it became a dead letter."""
    return [(name, cast(bytes, value)) for name, value in headers or () if not name.startswith("dlq_")]


def _dotted(overrides: dict[str, Any]) -> dict[str, Any]:
    return {name if name == "log_level" else name.replace("_", "."): value for name, value in overrides.items()}


def _limit(name: str) -> int:
    declared = CATALOGUE.get(name)
    return _DLQ_LIMIT if declared is None else declared.max_message_bytes


def _too_large(name: str, size: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"a message of {size:,} bytes is too large for {name}, which takes {_limit(name):,} with its headers"
    )


class _Admin:
    """An admin client that knows why it gets no answer.

    librdkafka tells the reason (a wrong password, an unknown authority) to a callback, and to who asked only
    that it took too long.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        from confluent_kafka.admin import AdminClient

        self._told: Any = None
        self.client = AdminClient(settings.client_config() | {"log_level": 0, "error_cb": self._listen})

    def counts(self, timeout_s: float = 10.0) -> dict[str, int]:
        """Return the number of partitions of every topic. Raises KafkaException with the reason."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                topics = self.client.list_topics(timeout=min(timeout_s, 1.0)).topics
                return {name: len(each.partitions) for name, each in topics.items()}
            except KafkaException as error:
                self.client.poll(0)
                reason = KafkaException(self._told or error.args[0])
                if time.monotonic() > end or isinstance(translated(reason), KafkaRefusedError):
                    raise reason from error

    def _listen(self, error: Any) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # that one says less than what came before it
            self._told = error


def retrying(ask: Callable[[], _T], settings: KafkaSettings, attempts: int = 5) -> _T:
    """Return what `ask` returns; a broker that is starting, or loading a group, is asked again with backoff.

    Raises KafkaUnavailableError after the last attempt, with the broker's last words, and
    KafkaRefusedError at once.
    """
    for attempt in range(attempts):
        if attempt:
            time.sleep(0.2 * 2**attempt)
        try:
            return ask()
        except KafkaException as error:
            reason = error.args[0].str()
            if isinstance(refused := translated(error), KafkaRefusedError):
                raise refused from error
    raise KafkaUnavailableError(f"no broker answers at {settings.address}: {reason}")


def _wait_for(admin: _Admin, names: set[str], timeout_s: float) -> None:
    """A new topic is known to the controller before every broker answers for it."""
    end = time.monotonic() + timeout_s
    while missing := names - admin.counts().keys():
        if time.monotonic() > end:
            raise KafkaUnavailableError(
                f"topics were created and are not there yet: {', '.join(sorted(missing))}"
            )
        time.sleep(0.1)
