"""The insight view: committed insights, folded into a stream of each dealer's in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import redis.exceptions

from connectors.registry import RegistryUnavailableError
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.insights.store import Entry, InsightStore
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["InsightView"]

_TOPIC = "insights"


class InsightView(View):
    """Appends insights to their dealer's stream; an id that came before is counted and left out."""

    name = "insight-view"
    topics = (_TOPIC,)
    retried = (redis.exceptions.RedisError, RegistryUnavailableError)

    def __init__(self, store: InsightStore, fetch_schema: Callable[[int], Any]) -> None:
        self._store = store
        self._decoder = Decoder.of_topic(_TOPIC, fetch_schema)
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position held in Redis."""
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Append what is new."""
        behind: Position = {}
        unreadable: list[tuple[Any, Exception]] = []
        entries: dict[str, Entry] = {}
        stamps: list[int] = []
        duplicates = 0
        for message in messages:
            behind[_TOPIC, message.partition()] = message.offset() + 1
            if message.value() is None:
                continue
            try:
                record = valid(_TOPIC, self._decoder.decode(message.value()))
            except ContractError as error:
                unreadable.append((message, error))
                continue
            identity = record["event_id"]
            if identity in entries:
                duplicates += 1
                continue
            body = orjson.dumps({"cursor": str(message.offset()), **record})
            entries[identity] = Entry(record["dealer_id"], message.offset(), identity, body)
            stamps.append(message.timestamp()[1])
        held = self._store.known(list(entries))
        fresh = [each for each, at in zip(entries.values(), held, strict=True) if at is None]
        self.refuse(unreadable)
        self._store.commit(fresh, behind)
        # One that is held from the same offset is the same record again: the view is being filled anew.
        duplicates += sum(
            at not in (None, each.offset) for each, at in zip(entries.values(), held, strict=True)
        )
        if duplicates:
            self._meters.count("duplicate", duplicates)
        now_ms = time.time() * 1000
        self._meters.freshness([max(now_ms - each, 0.0) / 1000 for each in stamps])
