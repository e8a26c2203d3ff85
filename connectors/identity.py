"""How an event that its source gave no id gets one, and which fields of a topic say who it is.

An id is the hash of the event's natural key (`schemas.ids`), so the same row read twice is recognisably the
same event. A source's own id, where it has one, comes first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import polars as pl

from schemas.catalogue import topic
from schemas.ids import event_id

__all__ = ["NATURAL_KEYS", "id_field", "identify"]

NATURAL_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "orders": ("order_id", "line"),
        "chats": ("conversation_id", "sender", "event_time", "text"),
        "feedback": ("dealer_id", "subject_type", "subject_id", "kind", "source", "event_time"),
        "inventory": ("dealer_id", "product_id", "event_time"),
        "promotions": ("product_id", "dealer_id", "week"),
        "products": ("product_id", "event_time"),
        "dealers": ("dealer_id", "event_time"),
        "documents": ("document_id", "event_time"),
    }
)


def id_field(topic_name: str) -> str | None:
    """Return the field that holds the event's identity, or None when the topic's records carry none."""
    fields = {field["name"] for field in (topic(topic_name).schema or {"fields": ()})["fields"]}
    return next((name for name in ("event_id", "promotion_id") if name in fields), None)


def identify(topic_name: str, frame: pl.DataFrame) -> list[str]:
    """Return the id of each row, made from the topic's natural key; an absent column counts as missing."""
    parts = [
        frame[name].to_list() if name in frame.columns else [None] * frame.height
        for name in NATURAL_KEYS[topic_name]
    ]
    return [event_id(topic_name, *values) for values in zip(*parts, strict=True)]
