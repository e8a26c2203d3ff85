"""Leads of the past as the stream would have lived them: predict, wait for the outcome, learn (prequential).

Test-then-learn with delayed labels (Gama, Sebastião & Rodrigues, "On evaluating stream learning algorithms",
2013; Grzenda, Gomes & Bifet, "Delayed labelling evaluation for data streams", 2020): an outcome is learnt with
the vector that was there when the message was answered, and judges that answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.leads.conversation import Conversation, Message
from models.leads.learner import Learner, answer_of
from models.leads.outcome import outcome_of
from models.leads.voices import Said, Voices

__all__ = ["Labelled", "replay"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Labelled:
    """An outcome, and what had been answered: `vector` and `coefficients` are those of then."""

    conversation_id: str
    feedback: Record
    outcome: float
    answer: float
    weight: float
    vector: tuple[float, ...]
    coefficients: tuple[float, ...]


def replay(
    enriched: Iterable[Record],
    feedback: Iterable[Record],
    outcome: Callable[[Record], float | None] = outcome_of,
    learner: Learner | None = None,
) -> Iterator[Labelled]:
    """Yield each outcome of a message that had come, before it is learnt from.

    Args:
        enriched: records of `chats.enriched` in the order of event time.
        feedback: those of `feedback`, in the same order.
        outcome: what a feedback says came of the chat; None for one that says nothing of it.
        learner: learns from each; by default a new one.
    """
    learner, voices = learner or Learner(), Voices()
    said: dict[tuple[str, str], Said] = {}
    conversations: dict[tuple[str, str], Conversation] = {}
    answered: dict[str, tuple[str, str, tuple[float, ...], tuple[float, ...], float]] = {}
    messages = ((each["event_time"], 0, each) for each in enriched)
    words = ((each["event_time"], 1, each) for each in feedback)
    coefficients = learner.coefficients()
    for _, kind, record in heapq.merge(messages, words, key=lambda each: each[:2]):
        if kind == 0:
            if record["cause_id"] in answered:
                continue
            lead = record["dealer_id"], record["conversation_id"]
            known = conversations.setdefault(lead, Conversation())
            known.add(Message.of(record))
            vector = known.vector()
            answered[record["cause_id"]] = *lead, vector, coefficients, answer_of(vector, coefficients)
            continue
        came, then = outcome(record), answered.get(record["subject_id"])
        if came is None or then is None or then[0] != record["dealer_id"]:
            continue
        dealer, conversation, vector, served, answer = then
        before = said.get((f"{dealer}/{conversation}", record["source"]))
        weight, said[f"{dealer}/{conversation}", record["source"]] = voices.weigh(
            record["source"], came, before, record["event_time"]
        )
        yield Labelled(conversation, record, came, answer, weight, vector, served)
        learner.learn(vector, came, weight)
        coefficients = learner.coefficients()
