"""What the views of leads know, in Redis beside their positions. Keys, after the project (`dealeriq`):

- `:lead:<dealer>/<conversation>`: JSON of the conversation; expires
- `:lead-message:<chat>`: JSON of what a message was answered with; expires
- `:lead-insight:<event_id>`: the chat whose score made an insight; expires
- `:lead-waiting:<chat>`: hash of event_id → JSON of an outcome that came before its message; expires
- `:lead-model`: hash of `learner`, `voices`: what the online model has learnt
- `:lead-said`: hash of JSON [lead, source] → what the source last said of the lead
- `:lead-answers`: list of the newest `<answer> <outcome>`, the newest last
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from models.leads import NAMES, Conversation, Learner, Said, Voices
from streams.views.positioned import PositionedStore

__all__ = ["Answered", "Changes", "LeadStore", "LearnerStore", "lead_of"]

_ANSWERS = 2_000
_FORM = f"<{len(NAMES)}f"


def lead_of(record: Mapping[str, Any]) -> str:
    """Return the name of a conversation's lead: no two dealers share one."""
    return f"{record['dealer_id']}/{record['conversation_id']}"


class Answered(NamedTuple):
    """What a message was answered with: its conversation's vector then, and the model's answer."""

    dealer_id: str
    conversation_id: str
    answer: float
    vector: tuple[float, ...]

    def dump(self) -> str:
        """Return it as JSON, to the bit."""
        packed = b64encode(struct.pack(_FORM, *self.vector)).decode()
        return json.dumps([self.dealer_id, self.conversation_id, self.answer, packed])

    @classmethod
    def load(cls, text: bytes) -> Answered | None:
        """Read what `dump` wrote; None for a vector of other numbers, of an earlier release."""
        dealer, conversation, answer, packed = json.loads(text)
        raw = b64decode(packed)
        if len(raw) != struct.calcsize(_FORM):
            return None
        return cls(dealer, conversation, answer, struct.unpack(_FORM, raw))


@dataclass
class Changes:
    """What one batch does to the store; `ended` are chats for which nothing waits any more, `told` insights
    with the chats that they are of.
    """

    conversations: dict[str, Conversation] = field(default_factory=dict)
    messages: dict[str, Answered] = field(default_factory=dict)
    held: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    told: dict[str, str] = field(default_factory=dict)


class LeadStore(PositionedStore):
    """Conversations, and what their messages were answered with; redis errors pass through.

    `keep_days` is how long a conversation is known after its last message, and an outcome waits or is waited
    for.
    """

    def __init__(self, redis: Any, project: str, keep_days: float) -> None:
        super().__init__(redis, project, "lead-view")
        self._keep_ms = max(1_000, round(keep_days * 86_400_000))

    def look(
        self, leads: Iterable[str], chats: Iterable[str]
    ) -> tuple[dict[str, Conversation], dict[str, Answered], dict[str, list[dict[str, Any]]]]:
        """Return the conversations of leads, and of chats how they were answered and what waits for them."""
        named, asked = list(leads), list(chats)
        pipeline = self.redis.pipeline(transaction=False)
        for lead in named:
            pipeline.get(self._key("lead", lead))
        for chat in asked:
            pipeline.get(self._key("lead-message", chat))
            pipeline.hvals(self._key("lead-waiting", chat))
        found = pipeline.execute() if named or asked else []
        conversations = {
            lead: Conversation(**json.loads(text))
            for lead, text in zip(named, found, strict=False)
            if text is not None
        }
        rest = found[len(named) :]
        answered, waiting = {}, {}
        for chat, text, held in zip(asked, rest[::2], rest[1::2], strict=True):
            known = None if text is None else Answered.load(text)
            if known is not None:
                answered[chat] = known
            if held:
                waiting[chat] = [json.loads(each) for each in held]
        return conversations, answered, waiting

    def chats_of(self, insights: Sequence[str]) -> dict[str, str]:
        """Return the chats that insights of this view are of, by the insights' ids."""
        found = self.redis.mget([self._key("lead-insight", each) for each in insights]) if insights else []
        return {each: chat.decode() for each, chat in zip(insights, found, strict=True) if chat is not None}

    def commit(self, changes: Changes, behind: Mapping[tuple[str, int], int]) -> None:
        """Store all changes and move the positions, in one step; may repeat. Raises StoreReplacedError."""
        self.commit_queued(lambda pipeline: self._queue(pipeline, changes), behind)

    def _queue(self, pipeline: Any, changes: Changes) -> None:
        for lead, each in changes.conversations.items():
            pipeline.set(self._key("lead", lead), json.dumps(asdict(each)), px=self._keep_ms)
        for chat, answered in changes.messages.items():
            pipeline.set(self._key("lead-message", chat), answered.dump(), px=self._keep_ms)
        for (chat, event_id), record in changes.held.items():
            pipeline.hset(self._key("lead-waiting", chat), event_id, json.dumps(record))
            pipeline.pexpire(self._key("lead-waiting", chat), self._keep_ms)
        for insight, chat in changes.told.items():
            pipeline.set(self._key("lead-insight", insight), chat, px=self._keep_ms)
        for chat in changes.ended:
            pipeline.delete(self._key("lead-waiting", chat))

    def _key(self, kind: str, name: str) -> str:
        return f"{self.project}:{kind}:{name}"


class LearnerStore(PositionedStore):
    """What the online model has learnt, and the position behind it; redis errors pass through."""

    def __init__(self, redis: Any, project: str) -> None:
        super().__init__(redis, project, "lead-learner")
        self._model, self._said = f"{project}:lead-model", f"{project}:lead-said"
        self._answers = f"{project}:lead-answers"

    def load(self) -> tuple[Learner, Voices]:
        """Return the model; one that has learnt nothing where the store is new."""
        held = self.redis.hgetall(self._model)
        if not held:
            return Learner(), Voices()
        return Learner.load(held[b"learner"].decode()), Voices.load(held[b"voices"].decode())

    def said(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Said]:
        """Return what sources last said of leads, of (lead, source)."""
        names = [json.dumps(each) for each in pairs]
        found = self.redis.hmget(self._said, names) if names else []
        return {
            pair: Said.load(text.decode()) for pair, text in zip(pairs, found, strict=True) if text is not None
        }

    def answers(self) -> list[tuple[float, float]]:
        """Return the newest answers with their outcomes, the newest last."""
        pairs = (each.decode().split(" ") for each in self.redis.lrange(self._answers, 0, -1))
        return [(float(answer), float(outcome)) for answer, outcome in pairs]

    def commit(
        self,
        learner: Learner,
        voices: Voices,
        said: Mapping[tuple[str, str], Said],
        answers: Sequence[tuple[float, float]],
        behind: Mapping[tuple[str, int], int],
    ) -> None:
        """Store the model and move the position, in one step; may repeat. Raises StoreReplacedError."""

        def queue(pipeline: Any) -> None:
            pipeline.hset(self._model, mapping={"learner": learner.dump(), "voices": voices.dump()})
            if said:
                pipeline.hset(
                    self._said, mapping={json.dumps(pair): each.dump() for pair, each in said.items()}
                )
            if answers:
                pipeline.rpush(self._answers, *(f"{p!r} {y:g}" for p, y in answers))
                pipeline.ltrim(self._answers, -_ANSWERS, -1)

        self.commit_queued(queue, behind)
