"""Quix Streams with a Python predict, in the peers' environment, told on stdin.

Scores `lines` order lines of the topic `orders`, one at a time, as its users write it: a vector of the line's
own fields (no features are looked up), LightGBM's own `predict`, and a JSON record with exactly-once delivery.
Answers one JSON line: lines, seconds.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

import lightgbm
import numpy as np
from quixstreams import Application
from quixstreams.models.serializers import SchemaRegistryClientConfig
from quixstreams.models.serializers.avro import AvroDeserializer


def main() -> None:
    """Run once."""
    order = json.load(sys.stdin)
    name = f"quix-{uuid.uuid4().hex[:8]}"
    booster = lightgbm.Booster(model_file=order["model"])
    width = booster.num_feature()
    done, began = 0, 0.0

    def processed(topic: str, partition: int, offset: int) -> None:
        nonlocal done, began
        began = began or time.monotonic()
        done += 1
        if done == order["lines"]:
            app.stop()

    def score(value: dict[str, Any]) -> dict[str, Any]:
        vector = np.full((1, width), np.nan)
        vector[0, :3] = value["quantity"], value["amount"], value["discount"]
        if value["quantity"] and value["amount"]:
            vector[0, 3:5] = value["amount"] / value["quantity"], value["discount"] / value["amount"]
        return {"event_id": value["event_id"], "score": float(booster.predict(vector)[0])}

    app = Application(
        broker_address=order["broker"], consumer_group=name, auto_offset_reset="earliest",
        state_dir=order["state"], on_message_processed=processed, loglevel="WARNING",
        processing_guarantee="exactly-once",
        consumer_extra_config={"isolation.level": "read_committed"},
    )  # fmt: skip
    where = SchemaRegistryClientConfig(url=order["registry"])
    orders = app.topic("orders", value_deserializer=AvroDeserializer(schema_registry_client_config=where))
    stream = app.dataframe(orders).apply(score)
    stream.to_topic(app.topic(f"{name}-scores", value_serializer="json"))
    app.run()
    print(json.dumps({"lines": done, "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
