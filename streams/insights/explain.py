"""Why an insight: its score found again, repeated through the version that made it, and what moved it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from connectors.kafka import KafkaUnavailableError, consumer
from connectors.settings import KafkaSettings
from models.inputs import Input
from models.runtime import Session
from schemas.codec import Decoder
from schemas.errors import DealerIQError
from streams.scoring.reasons import contributions, reference

__all__ = ["Explanation", "InsightNotFoundError", "ScoreNotFoundError", "explain", "read_score", "vector_of"]

_WAIT_S = 20.0
Record = dict[str, Any]


class InsightNotFoundError(DealerIQError):
    """No insight with this id is held."""

    remedy = "List a dealer's with GET /v1/dealers/{id}/insights; older ones are in the lake (`insights`)."
    exit_code = 2


class ScoreNotFoundError(DealerIQError):
    """The score behind an insight is not where the insight says."""

    remedy = "The topic `scores` may have let it go: look for `cause_id` in the lake's table `scores`."
    exit_code = 5


@dataclass(frozen=True)
class Explanation:
    """What `explain` finds. `same` says whether the repeated outputs equal the recorded ones to the bit.

    `inputs` has for each input of the model its value, its usual value, and how much more the score is for it,
    the strongest first; where values stand for words, such as categories, `value_is` and `usual_is` are these.
    """

    score: Record
    outputs: dict[str, float]
    same: bool
    inputs: list[dict[str, Any]] = field(default_factory=list)


def read_score(kafka: KafkaSettings, fetch_schema: Callable[[int], Any], insight: Mapping[str, Any]) -> Record:
    """Return the score that an insight came from, from its place in the topic.

    Raises ScoreNotFoundError, KafkaUnavailableError.
    """
    name, _, place = str(insight["score_position"]).rpartition(":")
    name, _, partition = name.rpartition(":")
    if not (name and partition.isdigit() and place.isdigit()):
        raise ScoreNotFoundError(f"the insight names no place of its score: {insight['score_position']!r}")
    where = TopicPartition(name, int(partition), int(place))
    reader = consumer(kafka, "dealeriq-explain", enable_partition_eof=True)
    try:
        low, high = reader.get_watermark_offsets(TopicPartition(name, int(partition)), timeout=_WAIT_S)
        if not low <= int(place) < high:
            raise ScoreNotFoundError(f"{name}[{partition}] holds {low} to {high}, and the score was at {place}")
        reader.assign([where])
        message = reader.poll(_WAIT_S)
        if message is None or message.error() is not None:
            raise KafkaUnavailableError(f"{name}[{partition}]@{place} did not come in {_WAIT_S:.0f} s")
        record: Record = Decoder.of_topic("scores", fetch_schema).decode(message.value())
    finally:
        reader.close()
    if record["event_id"] != insight["cause_id"]:
        raise ScoreNotFoundError(
            f"{name}[{partition}]@{place} holds score {record['event_id']}, and {insight['cause_id']} is wanted"
        )
    return record


def vector_of(session: Session, score: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the recorded vector, float32 [1, inputs]; null is NaN."""
    given = score["features"]
    values = [given.get(each.name) for each in session.description.inputs]
    return np.array([[np.nan if value is None else value for value in values]], np.float32)


def explain(session: Session, score: Record) -> Explanation:
    """Repeat a score through its version's session, and ask the model what each input did to it."""
    told = session.description
    vector = vector_of(session, score)
    answers = session.run(vector)
    outputs = dict(zip(told.outputs, answers[0].astype(np.float64).tolist(), strict=True))
    moved = contributions(session, vector, answers)[0, :, told.outputs.index(told.score)]
    usual = reference(told)
    inputs = [
        _input(told.inputs[at], _number(vector[0, at]), _number(usual[at]), float(moved[at]))
        for at in np.argsort(-np.abs(moved), kind="stable").tolist()
    ]
    same = outputs == score["outputs"] and outputs[told.score] == score["score"]
    return Explanation(score, outputs, same, inputs)


def _input(asked: Input, value: float | None, usual: float | None, by: float) -> dict[str, Any]:
    told = {"input": asked.name, "value": value, "usual": usual, "by": by}
    words = {"value_is": asked.word(value), "usual_is": asked.word(usual)}
    return told | {name: word for name, word in words.items() if word is not None}


def _number(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
