"""The label view: feedback and enriched chats, folded into what waits for the other, and labels of both.

Labels and dead letters are in Kafka before the position moves past what they came from: a crash between the two
repeats them with the same ids, and loses none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions

from connectors.kafka import KafkaUnavailableError, Producer, dead_letter
from connectors.registry import RegistryRefusedError, RegistryUnavailableError
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers, new_traceparent, parse_headers
from schemas.errors import ContractError
from schemas.validate import valid
from streams.labels.label import JOINED, Record, Subject, label_of, name_of
from streams.labels.message import HeldMessage
from streams.labels.store import Changes, LabelStore, Waiting
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["LabelView"]

_DELIVERY_S = 30.0
_FEEDBACK, _CHATS, _LABELS = "feedback", "chats.enriched", "labels"


@dataclass
class _Batch:
    """Messages, read and told apart; `stamps` are when the chats that came were produced, ms."""

    behind: Position = field(default_factory=dict)
    feedback: list[tuple[Any, Record]] = field(default_factory=list)
    come: dict[str, Subject] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    dead: list[tuple[Any, Exception]] = field(default_factory=list)
    tombstones: int = 0


class LabelView(View):
    """Joins feedback to the chat it is about, whichever comes first.

    Feedback whose chat has not come is held until it comes, or until its wait is over: then it is labelled
    without. Outcomes that are counted: `produced`, `held`, `unknown_subject` (the wait was over),
    `dead_letter`, `tombstone`.

    Args:
        store: subjects, what waits, and the position.
        producer: where labels and dead letters go.
        fetch_schema: schema of a registry id (`Registry.schema`).
        label_schema_id: returns the registry's id of the schema of labels; asked once.
    """

    name = "label-view"
    topics = (_FEEDBACK, _CHATS)
    retried = (
        redis.exceptions.RedisError, RegistryUnavailableError, RegistryRefusedError, KafkaUnavailableError,
    )  # fmt: skip

    def __init__(
        self,
        store: LabelStore,
        producer: Producer,
        fetch_schema: Callable[[int], Any],
        label_schema_id: Callable[[], int],
    ) -> None:
        self._store, self._producer, self._label_schema_id = store, producer, label_schema_id
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in self.topics}
        self._encoder: Encoder | None = None
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position held in Redis."""
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Label what is complete, hold what is not; dead letters are kept here, before the position moves."""
        batch = self._batch(messages)
        asked = {name_of(record) for _, record in batch.feedback if record["subject_type"] in JOINED}
        known, waiting = self._store.look(asked | batch.come.keys(), batch.come)
        known = batch.come | known
        changes = Changes(subjects=batch.come, ended=set(waiting))
        ready: list[tuple[Any, Record, Subject | None]] = []
        ready += [(held, self._read(held), known[each.subject]) for each, held in waiting.items()]
        began = [batch.stamps[each.subject] for each in waiting]
        for message, record in batch.feedback:
            subject = known.get(name_of(record))
            if subject is None and record["subject_type"] in JOINED:
                held = HeldMessage.of(message)
                changes.held.setdefault(Waiting(name_of(record), record["event_id"]), held)
            else:
                ready.append((message, record, subject))
                began.append(message.timestamp()[1])
        produced = self._produce(ready, batch.dead)
        self._store.commit(changes, batch.behind)
        self._count(
            produced=produced, held=len(changes.held), dead_letter=len(batch.dead), tombstone=batch.tombstones
        )
        now_ms = time.time() * 1000
        self._meters.freshness([max(now_ms - each, 0.0) / 1000 for each in began])
        if batch.feedback:
            self._meters.event_time(max(record["event_time"] for _, record in batch.feedback))

    def tick(self) -> None:
        """Label what has waited long enough without its subject."""
        while over := self._store.due():
            dead: list[tuple[Any, Exception]] = []
            produced = self._produce([(held, self._read(held), None) for held in over.values()], dead)
            self._store.commit(Changes(ended=set(over)), {})
            self._count(unknown_subject=produced, dead_letter=len(dead))

    def _batch(self, messages: Sequence[Any]) -> _Batch:
        batch = _Batch()
        for message in messages:
            batch.behind[message.topic(), message.partition()] = message.offset() + 1
            if message.value() is None:  # on a topic of events there is nothing that it could delete
                batch.tombstones += 1
                continue
            try:
                record = self._read(message)
            except ContractError as error:
                batch.dead.append((message, error))
                continue
            if message.topic() == _FEEDBACK:
                batch.feedback.append((message, record))
            else:
                name = f"chat/{record['cause_id']}"
                batch.come.setdefault(name, Subject(record["dealer_id"], record["intent"]))
                batch.stamps.setdefault(name, message.timestamp()[1])
        return batch

    def _read(self, message: Any) -> Record:
        topic = message.topic()
        return valid(topic, self._decoders[topic].decode(message.value()))

    def _produce(
        self, ready: Iterable[tuple[Any, Record, Subject | None]], dead: list[tuple[Any, Exception]]
    ) -> int:
        """Produce labels and dead letters, and wait until Kafka has them; return how many were labels."""
        if self._encoder is None:
            self._encoder = Encoder(_LABELS, self._label_schema_id())
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(error)

        count = 0
        for message, record, subject in ready:
            try:
                label = label_of(record, subject)
                value = self._encoder.encode(label)
                self._producer.produce(
                    _LABELS,
                    value,
                    key=label["dealer_id"].encode(),
                    headers=_envelope(message, label, f"dealeriq/{self.name}"),
                    on_delivery=delivered,
                )
                count += 1
            except ContractError as error:
                dead.append((message, error))
        for message, reason in dead:
            dead_letter(self._producer, message, reason, self.name, delivered)
        left = self._producer.flush(_DELIVERY_S)
        if left or errors:
            told = errors[0].str() if errors else f"{left} messages unacknowledged"
            raise KafkaUnavailableError(f"{self.name} cannot produce: {told}")
        return count

    def _count(self, **outcomes: int) -> None:
        for outcome, records in outcomes.items():
            if records:
                self._meters.count(outcome, records)


def _envelope(message: Any, label: Record, source: str) -> list[tuple[str, bytes]]:
    trace = new_traceparent(parse_headers(message.headers()).traceparent)
    return headers(label["event_id"], _LABELS, source, label["event_time"], label["subject_id"], trace)
