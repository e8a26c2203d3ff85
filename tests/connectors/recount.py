"""Count a topic's events again, from the log itself."""

from collections import Counter

from confluent_kafka import TopicPartition

from connectors.kafka import consumer, ensure_topics
from connectors.whole import end_offset
from dealeriq.settings import Settings
from schemas.catalogue import topic
from schemas.envelope import parse_headers


def log_ends(stack: Settings, name: str) -> dict[int, int]:
    ensure_topics(stack.kafka, [name])
    reader = consumer(stack.kafka, "test-ends")
    partitions = range(topic(name).partitions)
    ends = {p: end_offset(reader, TopicPartition(name, p)) for p in partitions}
    reader.close()
    return ends


def committed_ids(stack: Settings, name: str, since: dict[int, int] | None = None) -> Counter[str]:
    """Recount a topic's events by id, committed records only, from the log itself."""
    reader = consumer(stack.kafka, "test-recount", enable_partition_eof=True)
    begin = since or dict.fromkeys(range(topic(name).partitions), 0)
    reader.assign([TopicPartition(name, p, offset) for p, offset in begin.items()])
    ids: Counter[str] = Counter()
    waiting = set(begin)
    while waiting:
        for message in reader.consume(2000, timeout=0.2):
            if message.error() is not None:
                waiting.discard(message.partition())
            else:
                ids[str(parse_headers(message.headers()).event_id)] += 1
    reader.close()
    return ids
