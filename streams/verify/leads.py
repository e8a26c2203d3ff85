"""The online model of leads against its log: what it has learnt is what the lessons before its position give.

Worked out here once more in plain arithmetic, from the records alone: stochastic gradient descent by the
textbook, and who is believed how much by the words of docs/leads.md. The store is read at one moment, model and
position together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.registry import Registry
from connectors.whole import WholeTopic
from features.keys import position_key
from models.leads import NAMES
from models.leads.learner import RATE, SHRINK
from models.leads.voices import ESTABLISHED, GONE, HALF_MS, KEEP, MOST, SLACK
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.verify.broker import Broker
from streams.verify.findings import Finding

__all__ = ["LeadCheck", "learnt_from", "verify_leads"]

_TOPIC = "leads.labelled"
_SAME = 1e-6  # two ways to add the same numbers differ in their last bits


@dataclass
class LeadCheck:
    """How many lessons were read again, and what was found."""

    lessons: int = 0
    findings: list[Finding] = field(default_factory=list)


def verify_leads(
    store: Any, project: str, broker: Broker, registry: Registry, pause: Callable[[], None]
) -> LeadCheck:
    """Compare all of it; nothing where no lead was learnt from. Raises KafkaUnavailableError, redis errors."""
    pipeline = store.pipeline(transaction=True)
    pipeline.hgetall(f"{project}:lead-model")
    pipeline.hgetall(position_key(project, "lead-learner"))
    held, positions = pipeline.execute()
    if not held or not positions:
        return LeadCheck()
    upto = int(positions[f"{_TOPIC}:0".encode()])
    learner = json.loads(held[b"learner"])
    found = {**learner["weights"], "intercept": learner["intercept"], "outcomes": learner["learnt"]}
    check = LeadCheck()
    expected = learnt_from(_lessons(broker, registry, upto, check, pause))
    position = f"{_TOPIC}[0]@{upto}"
    for name, wanted in expected.items():
        has = found.get(name, 0.0)
        if not math.isclose(has, wanted, rel_tol=_SAME, abs_tol=_SAME):
            what = "what it has learnt"
            check.findings.append(
                Finding("learner", "online", "lead-learner", (name,), what, "", wanted, has, position)
            )
    return check


def learnt_from(lessons: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return each weight, the intercept and the number of outcomes after lessons in the order of their log."""
    weights, intercept, count = [0.0] * len(NAMES), 0.0, 0
    taken: dict[str, float] = {}
    said: dict[tuple[str, str, str], tuple[float, int]] = {}
    latest = 0
    for each in lessons:
        count += 1
        if each["event_time"] > latest:
            less = 0.5 ** ((each["event_time"] - latest) / HALF_MS)
            taken = {name: value * less for name, value in taken.items() if value * less > GONE}
            latest = each["event_time"]
        source, outcome = each["source"], each["outcome"]
        who = each["dealer_id"], each["conversation_id"], source
        before, times = said.get(who, (None, 0))
        fresh = before is None or (before != outcome and times == 1)
        said[who] = outcome, times + fresh
        weight = _believed(taken, source) if fresh else 0.0
        if weight > 0:
            taken = {name: value * (1 - (1 - KEEP) * weight) for name, value in taken.items()}
            taken = {name: value for name, value in taken.items() if value > GONE}
            taken[source] = taken.get(source, 0.0) + weight
            x = [each["features"].get(name, 0.0) for name in NAMES]
            odds = math.fsum(w * value for w, value in zip(weights, x, strict=True)) + intercept
            slope = (1 / (1 + math.exp(-odds)) - outcome) * weight
            weights = [w - RATE * (slope * v + SHRINK * w) for w, v in zip(weights, x, strict=True)]
            intercept -= RATE * slope
    return {**dict(zip(NAMES, weights, strict=True)), "intercept": intercept, "outcomes": float(count)}


def _believed(taken: Mapping[str, float], source: str) -> float:
    """What one more label of a source weighs: a third of all at most, or one and a half times its equal share,
    once two others have told something.
    """
    mine = taken.get(source, 0.0)
    others = [value for name, value in taken.items() if name != source]
    many = sum(value >= ESTABLISHED for value in others)
    if mine < ESTABLISHED or many < 2:
        return 1.0
    share = max(MOST, SLACK / (many + 1))
    return min(1.0, max(0.0, math.fsum(others) * share / (1 - share) - mine))


def _lessons(
    broker: Broker, registry: Registry, upto: int, check: LeadCheck, pause: Callable[[], None]
) -> Iterable[Mapping[str, Any]]:
    decoder = Decoder.of_topic(_TOPIC, registry.schema)
    whole = WholeTopic(broker.kafka, _TOPIC, "dealeriq-verify")
    try:
        for message in whole.records(upto={0: upto}):
            if message.offset() >= upto or message.value() is None:
                continue
            try:
                lesson = valid(_TOPIC, decoder.decode(message.value()))
            except ContractError:
                continue  # a dead letter taught nothing
            check.lessons += 1
            if check.lessons % 1_000 == 0:
                pause()
            yield lesson
    finally:
        whole.close()
