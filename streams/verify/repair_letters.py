"""Write the dead letters that are missing: the record's own bytes, key and headers, and why it was refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from connectors.kafka import dead_letter, producer
from connectors.registry import Registry
from schemas.codec import Decoder, UndecodableError
from schemas.validate import problems
from streams.verify.broker import Broker
from streams.verify.findings import Finding
from streams.verify.repair_lake import records_at

__all__ = ["letter_repairs"]

_AT_ONCE = 500


def letter_repairs(
    broker: Broker, registry: Registry, missing: Sequence[Finding]
) -> Iterator[tuple[str, str, Callable[[], bool]]]:
    """Yield for each `missing-letter` the dead-letter topic, what would be written, and the act that writes it.

    A letter whose bytes differ stays; the one behind it is right, and the last one of a position counts.
    """
    places: defaultdict[tuple[str, str, int], list[int]] = defaultdict(list)
    for each in missing:
        topic, _, place = each.position.partition("[")
        number, _, offset = place.partition("]@")
        places[topic, each.feature, int(number)].append(int(offset))
    for (topic, stage, partition), offsets in sorted(places.items()):
        for start in range(0, len(offsets), _AT_ONCE):
            part = offsets[start : start + _AT_ONCE]
            shown = ", ".join(map(str, part[:5])) + (", ..." if len(part) > 5 else "")
            detail = f"letters of {len(part)} records of {topic}[{partition}]: {shown}"

            def act(
                topic: str = topic, stage: str = stage, partition: int = partition, part: list[int] = part
            ) -> bool:
                return _write(broker, registry, topic, stage, partition, part)

            yield f"{topic}.dlq", detail, act


def _write(
    broker: Broker, registry: Registry, topic: str, stage: str, partition: int, offsets: Sequence[int]
) -> bool:
    decoder = Decoder.of_topic(topic, registry.schema)
    found = records_at(broker, topic, partition, offsets)
    writer = producer(broker.kafka)
    failed: list[Any] = []
    for message in found:
        reason = _reason(decoder, topic, message.value())
        dead_letter(
            writer, message, reason, f"{stage}.verify", lambda error, _: failed.append(error) if error else None
        )
    return writer.flush(60) == 0 and not failed and len(found) == len(offsets)


def _reason(decoder: Decoder, topic: str, value: bytes | None) -> str:
    if value is None:
        return "the value is null"
    try:
        return "; ".join(problems(topic, decoder.decode(value))) or "it was refused"
    except UndecodableError as error:
        return str(error)
