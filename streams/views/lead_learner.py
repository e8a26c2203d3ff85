"""The learner of leads: what became of them, one after another, folded into the online model.

`leads.labelled` has one partition, so its order is the order of learning: the model is a function of the log
alone, the same after a crash and in another store, to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions
from prometheus_client import Gauge

from connectors.registry import RegistryRefusedError, RegistryUnavailableError
from models.leads import NAMES, Learner, Said, Voices
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.leads.store import LearnerStore, lead_of
from streams.leads.weights import Weights
from streams.metrics import REGISTRY, StageMeters
from streams.views.view import Position, View

__all__ = ["TOPIC", "LeadLearner"]

TOPIC = "leads.labelled"
_LOSS = Gauge(
    "dealeriq_lead_log_loss",
    "Log loss of the newest 2,000 answers about leads (model), and of the share of orders among them (prior)",
    ["of"], registry=REGISTRY,
)  # fmt: skip


class LeadLearner(View):
    """Judges the answer that was given, then learns from the outcome.

    Outcomes that are counted: `learnt`, `repeated` (a source said it before), `capped` (its source has said
    enough), `tombstone`.

    Args:
        store: the model and the position.
        fetch_schema: schema of a registry id (`Registry.schema`).
        weights: where the coefficients are shown after each commit.
    """

    name = "lead-learner"
    topics = (TOPIC,)
    retried = (redis.exceptions.RedisError, RegistryUnavailableError, RegistryRefusedError)

    def __init__(self, store: LearnerStore, fetch_schema: Callable[[int], Any], weights: Weights) -> None:
        self._store, self._weights = store, weights
        self._decoder = Decoder.of_topic(TOPIC, fetch_schema)
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position held in Redis; show what was learnt up to there."""
        learner, _ = self._store.load()
        self._weights.now = learner.coefficients()
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Learn from each outcome in turn."""
        behind: Position = {}
        lessons, dead = [], []
        tombstones = 0
        for message in messages:
            behind[message.topic(), message.partition()] = message.offset() + 1
            if message.value() is None:
                tombstones += 1
                continue
            try:
                lessons.append(valid(TOPIC, self._decoder.decode(message.value())))
            except ContractError as error:
                dead.append((message, error))
        # What is in the store is where it goes on: a batch that failed half way has changed nothing.
        learner, voices = self._store.load()
        pairs = list(dict.fromkeys((lead_of(each), each["source"]) for each in lessons))
        said = self._store.said(pairs)
        answers, counted = self._learn(lessons, learner, voices, said)
        self.refuse(dead)
        self._store.commit(learner, voices, said, answers, behind)
        self._weights.now = learner.coefficients()
        self._tell()
        for outcome, count in (*counted.items(), ("tombstone", tombstones)):
            if count:
                self._meters.count(outcome, count)
        if lessons:
            self._meters.event_time(max(each["event_time"] for each in lessons))
        stamps = [message.timestamp()[1] for message in messages]
        now_ms = time.time() * 1000
        self._meters.freshness([max(now_ms - each, 0.0) / 1000 for each in stamps])

    def _learn(
        self, lessons: Sequence[dict[str, Any]], learner: Learner, voices: Voices,
        said: dict[tuple[str, str], Said],
    ) -> tuple[list[tuple[float, float]], dict[str, int]]:  # fmt: skip
        answers, counted = [], {"learnt": 0, "repeated": 0, "capped": 0}
        for each in lessons:
            pair = lead_of(each), each["source"]
            before = said.get(pair)
            weight, said[pair] = voices.weigh(each["source"], each["outcome"], before, each["event_time"])
            repeated = before is not None and said[pair].counted == before.counted
            if not repeated:
                answers.append((each["answer"], each["outcome"]))
            learner.learn([each["features"].get(name, 0.0) for name in NAMES], each["outcome"], weight)
            counted["learnt" if weight > 0 else "repeated" if repeated else "capped"] += 1
        return answers, counted

    def _tell(self) -> None:
        """Tell how good the newest answers were."""
        newest = self._store.answers()
        if not newest:
            return
        share = (sum(outcome for _, outcome in newest) + 0.5) / (len(newest) + 1)
        _LOSS.labels("model").set(sum(_loss(*each) for each in newest) / len(newest))
        _LOSS.labels("prior").set(sum(_loss(share, outcome) for _, outcome in newest) / len(newest))


def _loss(answer: float, outcome: float) -> float:
    p = min(max(answer, 1e-7), 1 - 1e-7)
    return -math.log(p if outcome > 0.5 else 1 - p)
