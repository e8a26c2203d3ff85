"""A conversation as the lead model sees it: a fold of its enriched messages, one after another.

Every number is bounded by what it is (a share, a mean of bounded values) or by a logarithm over what is long,
so that one gradient step is of one size whatever is said, and no scaler has to travel with a score. They are
rounded to float32, in which they are served: what is learnt from is what was answered, to the bit.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from models.text.examples import intents

__all__ = ["NAMES", "Conversation", "Message"]

_MANY, _LONG, _DAYS = 100.0, 2_000.0, 10_080.0  # messages, characters, minutes at which a logarithm is 1
_NUMBERS = (
    "messages", "customer_share", "length", "pace", "duration", "sentiment", "last_sentiment", "urgency",
    "most_urgent", "confidence",
)  # fmt: skip
NAMES: tuple[str, ...] = (*_NUMBERS, *(f"says_{each}" for each in intents().all))
"""The numbers of `Conversation.vector`, in order: of `says_INTENT`, the share of messages with that intent."""


class Message(NamedTuple):
    """What counts of an enriched message; `time_ms` is its event time."""

    sender: str
    length: int
    intent: str
    confidence: float
    sentiment: float
    urgency: float
    time_ms: int

    @classmethod
    def of(cls, enriched: Mapping[str, Any]) -> Message:
        """Return what counts of a record of `chats.enriched`."""
        return cls(
            enriched["sender"], len(enriched["text"]), enriched["intent"], enriched["intent_score"],
            enriched["sentiment"], enriched["urgency"], enriched["event_time"],
        )  # fmt: skip


@dataclass
class Conversation:
    """All that is kept of a conversation. Messages come in the order of their partition."""

    messages: int = 0
    by_customer: int = 0
    length: int = 0
    sentiment: float = 0.0
    urgency: float = 0.0
    confidence: float = 0.0
    last_sentiment: float = 0.0
    most_urgent: float = 0.0
    first_ms: int = 0
    last_ms: int = 0
    says: dict[str, int] = field(default_factory=dict)

    def add(self, message: Message) -> None:
        """Take the next message in."""
        self.first_ms = message.time_ms if not self.messages else min(self.first_ms, message.time_ms)
        self.last_ms = max(self.last_ms, message.time_ms)
        self.messages += 1
        self.by_customer += message.sender == "customer"
        self.length += message.length
        self.sentiment += message.sentiment
        self.urgency += message.urgency
        self.confidence += message.confidence
        self.last_sentiment = message.sentiment
        self.most_urgent = max(self.most_urgent, message.urgency)
        self.says[message.intent] = self.says.get(message.intent, 0) + 1

    def vector(self) -> tuple[float, ...]:
        """Return the numbers of `NAMES`. There is a message at least."""
        n = self.messages
        minutes = (self.last_ms - self.first_ms) / 60_000
        given = (
            _log(n, _MANY), self.by_customer / n, _log(self.length / n, _LONG),
            _log(minutes / max(n - 1, 1), _DAYS), _log(minutes, _DAYS), self.sentiment / n, self.last_sentiment,
            self.urgency / n, self.most_urgent, self.confidence / n,
            *(self.says.get(intent, 0) / n for intent in _intents()),
        )  # fmt: skip
        form = f"<{len(given)}f"
        return struct.unpack(form, struct.pack(form, *given))


def _log(value: float, unit: float) -> float:
    return math.log1p(max(value, 0.0)) / math.log1p(unit)


@cache
def _intents() -> tuple[str, ...]:
    return intents().all
