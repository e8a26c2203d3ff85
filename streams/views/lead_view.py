"""The lead view: conversations, answered after each message, and joined to what became of them.

Scores and lessons are in Kafka before the position moves past what they came from: a crash between the two
repeats them with the same ids. What cannot be read is the dead letter of the label view, which reads the same
topics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions

from connectors.kafka import KafkaUnavailableError, Producer
from connectors.registry import RegistryRefusedError, RegistryUnavailableError
from models.leads import NAMES, Conversation, Message, answer_of, outcome_of
from models.oip.client import RemoteUnavailableError
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers, new_traceparent, parse_headers
from schemas.errors import ContractError
from schemas.ids import derived_id
from schemas.validate import valid
from streams.leads.scorer import STAGE, Lead, LeadModels
from streams.leads.store import Answered, Changes, LeadStore, lead_of
from streams.leads.weights import Weights
from streams.metrics import StageMeters
from streams.scoring.producing import SCORES, Caused
from streams.views.lead_learner import TOPIC as LABELLED
from streams.views.view import Position, View

__all__ = ["VERSION", "LeadView"]

VERSION = "leads-1"
_CHATS, _FEEDBACK = "chats.enriched", "feedback"
_DELIVERY_S = 30.0
_CLOCKS_MS = 3_600_000  # by which good clocks may differ
Record = dict[str, Any]


@dataclass
class _Batch:
    """What came, in the order of the log, and what it leads to."""

    behind: Position = field(default_factory=dict)
    events: list[tuple[Any, Record]] = field(default_factory=list)
    scores: list[Caused] = field(default_factory=list)
    lessons: list[tuple[Record, Any]] = field(default_factory=list)
    leads: list[tuple[Lead, Any]] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: str) -> None:
        """Count one record."""
        self.counted[outcome] = self.counted.get(outcome, 0) + 1


class LeadView(View):
    """Scores each conversation after each of its messages, and hands what became of it to the learner.

    Outcomes that are counted: `produced`, `shadow`, `labelled`, `held` (an outcome whose message has not come),
    `repeated` (the message was answered before), `other` (feedback that tells no outcome of a lead),
    `wrong_dealer`, `future` (dated after the wall clock: a message is
    answered and not scored, an outcome not learnt from), `unserved` (no model),
    `unreadable`, `tombstone`.

    Args:
        store: conversations, answers, what waits, and the position.
        models: what is served; looked at once a batch.
        weights: the coefficients of the moment.
        producer: where scores and lessons go.
        fetch_schema: schema of a registry id (`Registry.schema`).
        schema_ids: returns the registry's ids of `scores` and `leads.labelled`, by topic; asked once.
        clock: the wall clock, s since the epoch.
    """

    name = STAGE
    topics = (_CHATS, _FEEDBACK)
    retried = (
        redis.exceptions.RedisError, RegistryUnavailableError, RegistryRefusedError, KafkaUnavailableError,
        RemoteUnavailableError,
    )  # fmt: skip

    def __init__(
        self,
        store: LeadStore,
        models: LeadModels,
        weights: Weights,
        producer: Producer,
        fetch_schema: Callable[[int], Any],
        schema_ids: Callable[[], dict[str, int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._models, self._weights, self._producer = store, models, weights, producer
        self._schema_ids, self._clock = schema_ids, clock
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in self.topics}
        self._encoder: Encoder | None = None
        self._scores_id = -1
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position held in Redis."""
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Answer what was written, label what was told, and produce both before the position moves."""
        batch = self._read(messages)
        chats = {each["cause_id"]: each for message, each in batch.events if message.topic() == _CHATS}
        told = {each["subject_id"] for message, each in batch.events if message.topic() == _FEEDBACK}
        leads = {lead_of(each) for each in chats.values()}
        conversations, answered, waiting = self._store.look(leads, chats.keys() | told)
        changes, weights = Changes(), self._weights.now
        for message, record in batch.events:
            if message.topic() == _CHATS:
                self._answer(batch, changes, message, record, weights, conversations, answered)
                for held in waiting.pop(record["cause_id"], ()):
                    self._label(batch, held, answered[record["cause_id"]], message)
                changes.ended.add(record["cause_id"])
            elif (known := answered.get(record["subject_id"])) is not None:
                self._label(batch, record, known, message)
            else:
                changes.held[record["subject_id"], record["event_id"]] = record
                waiting.setdefault(record["subject_id"], []).append(record)
                batch.count("held")
        # An outcome that waited within this batch only need not wait in the store.
        changes.held = {key: each for key, each in changes.held.items() if key[0] not in answered}
        self._score(batch, changes, weights)
        self._produce(batch)
        self._store.commit(changes, batch.behind)
        self._told(batch)

    def _read(self, messages: Sequence[Any]) -> _Batch:
        batch = _Batch()
        for message in messages:
            batch.behind[message.topic(), message.partition()] = message.offset() + 1
            if message.value() is None:
                batch.count("tombstone")
                continue
            try:
                record = valid(message.topic(), self._decoders[message.topic()].decode(message.value()))
            except ContractError:
                batch.count("unreadable")
                continue
            if message.topic() == _FEEDBACK and outcome_of(record) is None:
                batch.count("other")
                continue
            if message.topic() == _FEEDBACK and record["event_time"] > self._clock() * 1000 + _CLOCKS_MS:
                batch.count("future")  # who dates ahead would make what others said older
                continue
            batch.events.append((message, record))
        self._resolve(batch)
        return batch

    def _resolve(self, batch: _Batch) -> None:
        """Take what was told of an insight as told of the message that it is of."""
        asked = [each["subject_id"] for _, each in batch.events if each.get("subject_type") == "insight"]
        known = self._store.chats_of(asked)
        events = []
        for message, record in batch.events:
            if record.get("subject_type") != "insight":
                events.append((message, record))
            elif (chat := known.get(record["subject_id"])) is not None:
                events.append((message, record | {"subject_type": "chat", "subject_id": chat}))
            else:
                batch.count("other")  # an insight of another rule
        batch.events = events

    def _answer(
        self, batch: _Batch, changes: Changes, message: Any, record: Record, weights: tuple[float, ...],
        conversations: dict[str, Conversation], answered: dict[str, Answered],
    ) -> None:  # fmt: skip
        chat, lead = record["cause_id"], lead_of(record)
        if chat in answered:
            batch.count("repeated")
            return
        known = conversations.setdefault(lead, Conversation())
        known.add(Message.of(record))
        vector = known.vector()
        changes.conversations[lead] = known
        answered[chat] = changes.messages[chat] = Answered(
            record["dealer_id"], record["conversation_id"], answer_of(vector, weights), vector
        )
        if record["event_time"] > self._clock() * 1000 + _CLOCKS_MS:
            batch.count("future")
            return
        told = record["dealer_id"], record["conversation_id"], chat, record["event_id"], record["event_time"]
        batch.leads.append((Lead(*told, vector), message))

    def _label(self, batch: _Batch, feedback: Record, known: Answered, cause: Any) -> None:
        if known.dealer_id != feedback["dealer_id"]:
            batch.count("wrong_dealer")
            return
        outcome = outcome_of(feedback)
        lead = f"{known.dealer_id}/{known.conversation_id}"
        lesson = {
            "event_id": derived_id(VERSION, lead, feedback["event_time"], feedback["event_id"]),
            "dealer_id": known.dealer_id,
            "conversation_id": known.conversation_id,
            "message_id": feedback["subject_id"],
            "outcome": outcome,
            "source": feedback["source"],
            "answer": known.answer,
            "features": dict(zip(NAMES, known.vector, strict=True)),
            "cause_id": feedback["event_id"],
            "event_time": feedback["event_time"],
        }
        batch.lessons.append((lesson, cause))
        batch.count("labelled")

    def _score(self, batch: _Batch, changes: Changes, weights: tuple[float, ...]) -> None:
        served = self._models.current()
        leads = [lead for lead, _ in batch.leads]
        if not leads:
            return
        if not served:
            batch.counted["unserved"] = len(leads)
        for pair in served.values():
            for version in pair.scorers:
                try:
                    scores = version.score(leads, weights)
                except Exception as error:  # a challenger that fails must cost nobody a score
                    if not version.shadow:
                        raise
                    self._meters.error(error)
                    continue
                batch.scores.append(Caused(version, scores, [message for _, message in batch.leads]))
                batch.counted["shadow" if version.shadow else "produced"] = len(scores)
                for row, said in scores.readings.told.items():
                    # An answer to an insight is one to the message that made it.
                    ids = (each["insight_id"] for each in said if each["text"])
                    changes.told.update(dict.fromkeys(ids, leads[row].message_id))

    def _produce(self, batch: _Batch) -> None:
        if self._encoder is None:
            ids = self._schema_ids()
            self._encoder, self._scores_id = Encoder(LABELLED, ids[LABELLED]), ids[SCORES]
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(error)

        for each in batch.scores:
            for key, value, sent in each.messages(self._scores_id, self.name):
                self._producer.produce(SCORES, value, key=key, headers=sent, on_delivery=delivered)
        for record, cause in batch.lessons:
            trace = new_traceparent(parse_headers(cause.headers()).traceparent)
            lead, source = record["conversation_id"], f"dealeriq/{self.name}"
            sent = headers(record["event_id"], LABELLED, source, record["event_time"], lead, trace)
            value, key = self._encoder.encode(record), record["dealer_id"].encode()
            self._producer.produce(LABELLED, value, key=key, headers=sent, on_delivery=delivered)
        left = self._producer.flush(_DELIVERY_S)
        if left or errors:
            told = errors[0].str() if errors else f"{left} messages unacknowledged"
            raise KafkaUnavailableError(f"{self.name} cannot produce: {told}")

    def _told(self, batch: _Batch) -> None:
        for outcome, count in batch.counted.items():
            self._meters.count(outcome, count)
        if batch.leads:
            now_ms = time.time() * 1000
            self._meters.freshness(
                max(now_ms - message.timestamp()[1], 0.0) / 1000 for _, message in batch.leads
            )
            self._meters.event_time(max(lead.event_time for lead, _ in batch.leads))
