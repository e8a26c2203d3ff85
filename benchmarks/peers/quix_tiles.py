"""Quix Streams' side: `python -m benchmarks.peers.quix_tiles`, in the peers' environment, told on stdin.

Folds `lines` events of the topic `orders` into tiles of a minute, an hour and a day of each dealer, and writes
them to Redis with its own sink. Answers one JSON line: events, seconds from the first event to the last write,
and how many keys Redis holds of it.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import redis
from quixstreams import Application
from quixstreams.models.serializers import SchemaRegistryClientConfig
from quixstreams.models.serializers.avro import AvroDeserializer
from quixstreams.sinks.community.redis import RedisSink

_GRAINS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_COLUMNS = ("amount", "quantity", "discount")


def main() -> None:
    """Run once."""
    order = json.load(sys.stdin)
    name = f"quix-{uuid.uuid4().hex[:8]}"
    events, began = 0, 0.0

    def processed(topic: str, partition: int, offset: int) -> None:
        nonlocal events, began
        began = began or time.monotonic()
        events += 1
        if events == order["lines"]:
            app.stop()  # and it writes and commits what it holds

    app = Application(
        broker_address=order["broker"],
        consumer_group=name,
        auto_offset_reset="earliest",
        state_dir=order["state"],
        on_message_processed=processed,
        loglevel="WARNING",
        consumer_extra_config={"isolation.level": "read_committed"},
    )
    where = SchemaRegistryClientConfig(url=order["registry"])
    orders = app.topic(
        "orders",
        value_deserializer=AvroDeserializer(schema_registry_client_config=where),
        timestamp_extractor=lambda value, headers, timestamp, kind: _ms(value["event_time"]),
    )
    place = urlsplit(order["redis"])
    stream = app.dataframe(orders)
    for grain, length in _GRAINS.items():
        sink = RedisSink(place.hostname, place.port, 1, key_serializer=_keys(name, grain))
        window = stream.tumbling_window(length, grace_ms=timedelta(days=1), name=grain)
        folded = window.reduce(reducer=_add, initializer=_first)
        (folded.current() if order["way"] == "current" else folded.final()).sink(sink)
    app.run()
    seconds = time.monotonic() - began
    client = redis.Redis(place.hostname, place.port, 1)
    keys = sum(1 for _ in client.scan_iter(f"{name}:*", count=10_000))
    print(json.dumps({"events": events, "seconds": seconds, "keys": keys}), flush=True)


def _keys(name: str, grain: str) -> Any:
    return lambda key, value: (
        f"{name}:{key.decode() if isinstance(key, bytes) else key}:{grain}:{value['start']}"
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _first(value: dict[str, Any]) -> dict[str, Any]:
    tile: dict[str, Any] = {"n": 1, "time": _ms(value["event_time"])}
    for column in _COLUMNS:
        x = value[column]
        tile[column] = [x, x * x, x, x, x]
    return tile


def _add(tile: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    tile["n"] += 1
    time_ms = _ms(value["event_time"])
    later = time_ms >= tile["time"]
    if later:
        tile["time"] = time_ms
    for column in _COLUMNS:
        x, (total, squares, least, most, last) = value[column], tile[column]
        tile[column] = [total + x, squares + x * x, min(least, x), max(most, x), x if later else last]
    return tile


if __name__ == "__main__":
    main()
