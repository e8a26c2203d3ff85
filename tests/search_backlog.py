"""What other tests left in the topics of search is none of this test's work."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition

from connectors.kafka import consumer, producer
from connectors.settings import KafkaSettings
from connectors.vectors.folder import IndexFolder
from connectors.whole import WholeTopic
from dealeriq.search.folder import current_version, kinds_of, open_version
from dealeriq.settings import Settings
from models.text import packaged_encoder


def skip_backlog(
    kafka: KafkaSettings, known: Settings, folder: Path, topics: Sequence[str], agents: Sequence[str]
) -> None:
    """Let agents and a new index in `folder` begin at the ends of these topics."""
    ends = {}
    for agent in agents:
        with contextlib.closing(consumer(kafka, f"dealeriq-{agent}")) as mover:
            ends = _moved(mover, topics, time.monotonic() + 120.0)
    index_folder = IndexFolder(folder)
    index_folder.root.mkdir(parents=True)
    index = open_version(current_version(index_folder), known, kinds_of(known, packaged_encoder()))
    index.move(ends)
    index.close()


def delete_backlog(kafka: KafkaSettings, topics: Sequence[str]) -> None:
    """Delete what is in these topics: who encodes everything again would encode that too."""
    writer = producer(kafka)
    for name in topics:
        with contextlib.closing(WholeTopic(kafka, name, "test")) as whole:
            alive = {message.key(): message.value() is not None for message in whole.records()}
        for key in (key for key, there in alive.items() if there):
            writer.produce(name, None, key=key)
    assert writer.flush(30) == 0


def _moved(mover, topics, give_up_s):
    while True:
        try:
            ends = {
                (name, number): mover.get_watermark_offsets(TopicPartition(name, number), timeout=30)[1]
                for name in topics
                for number in mover.list_topics(name, timeout=30).topics[name].partitions
            }
            mover.commit(offsets=[TopicPartition(*at, end) for at, end in ends.items()], asynchronous=False)
            return ends
        except KafkaException:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.5)
