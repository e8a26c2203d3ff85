"""The topics that features are folded from."""

from datetime import timedelta

from feast import FileSource, KafkaSource
from feast.data_format import AvroFormat

from schemas.catalogue import topic


def _source(name: str) -> KafkaSource:
    import json

    return KafkaSource(
        name=name,
        topic=name,
        timestamp_field="event_time",
        message_format=AvroFormat(json.dumps(topic(name).schema)),
        watermark_delay_threshold=timedelta(days=1),
        batch_source=FileSource(name=f"{name}_history", path=f"lake/{name}", timestamp_field="event_time"),
    )


orders = _source("orders")
chats = _source("chats.enriched")
feedback = _source("feedback")
