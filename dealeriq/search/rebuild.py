"""The index made again, from the compacted topics alone, beside the one in use.

Folding every record takes its time, so it is done here, in a process that answers no searches. The search
process then reads on from the position that the new version holds.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka import TopicPartition

from connectors.kafka import KafkaUnavailableError, consumer, ensure_topics
from connectors.registry import Registry
from connectors.vectors import AnyOf, WrongFormatError
from connectors.vectors.folder import IndexFolder
from dealeriq.search.folder import encoder_in_use, folder_of, images_of, kinds_of, open_version
from dealeriq.search.servers import forgetter
from dealeriq.settings import Settings
from models.search.fields import entries_of
from models.text import Encoder, text_encoder
from streams.views.vector_view import VectorView
from streams.views.view import Position

__all__ = ["rebuild"]

_BATCH = 2_000
_TOLD_S = 5.0
_SILENT_S = 60.0


def rebuild(
    settings: Settings, progress: Callable[[str], None], encoder: Encoder | None = None
) -> dict[str, Any]:
    """Make a new version up to the ends that the topics have now, and let it count; return what was done.

    `encoder` is the one to go over to, and the version before is kept then; unset: the one that is in use.
    Raises KafkaUnavailableError, IndexBusyError where another rebuild goes on.
    """
    began = time.monotonic()
    folder = folder_of(settings)
    with folder.building(forgetter(settings.search)) as beside:
        chosen = encoder or _encoder(settings, folder)
        index = open_version(beside, settings, kinds_of(settings, chosen, images_of(settings)))
        try:
            view = VectorView(index, Registry(settings.registry).schema)
            ensure_topics(settings.kafka, view.topics)
            records = _fold(settings, view, progress)
            held = {kind: index.count([AnyOf("entry", entries_of([kind]))]) for kind in index.kinds}
        finally:
            index.close()
        folder.adopt(beside, keep=encoder is not None, about=chosen.identity)
    return {"records": records, "vectors": held, "seconds": round(time.monotonic() - began, 2)}


def _encoder(settings: Settings, folder: IndexFolder) -> Encoder:
    """The encoder in use, else that of [text]: an index of another one is what a rebuild is for."""
    try:
        return encoder_in_use(settings, folder)
    except WrongFormatError:
        return text_encoder(settings.text)


def _fold(settings: Settings, view: VectorView, progress: Callable[[str], None]) -> int:
    reading = consumer(settings.kafka, f"{settings.features.project}-rebuild-{uuid.uuid4().hex}")
    try:
        ends = _ends(reading, view)
        total, records = sum(ends.values()), 0
        reading.assign([TopicPartition(*at, 0) for at in ends])
        told = heard = time.monotonic()
        while left := sum(max(0, end - _position(reading, *at)) for at, end in ends.items()):
            messages = [each for each in reading.consume(_BATCH, 0.2) if each.error() is None]
            now = time.monotonic()
            if messages:
                view.apply(messages)
                records += len(messages)
                heard = now
            elif now - heard > _SILENT_S:
                raise KafkaUnavailableError(f"no record came for {_SILENT_S:.0f} s, and {left:,} are left")
            if now - told > _TOLD_S:
                progress(f"folded {records:,} records, {left:,} of {total:,} offsets are left")
                told = now
        return records
    finally:
        reading.close()


def _ends(reading: Any, view: VectorView) -> Position:
    found: Position = {}
    for name in view.topics:
        for number in reading.list_topics(name, timeout=30).topics[name].partitions:
            low, high = reading.get_watermark_offsets(TopicPartition(name, number), timeout=30)
            if high > low:
                found[name, number] = high
    return found


def _position(reading: Any, name: str, number: int) -> int:
    """The next offset to be read: behind markers of transactions, too."""
    return max(0, int(reading.position([TopicPartition(name, number)])[0].offset))
