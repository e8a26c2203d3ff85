"""What the rules of a model say of its scores: pure, so that whoever repeats it gets the same words and ids.

A rule is data (`model.json`). Its state over time, hysteresis and cool-down, is kept by the insight job in
Flink, which needs to know nothing of models: a score brings along what each rule says of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifact import ArtifactError, Description
from models.rules import InsightRule
from models.runtime import Session
from schemas.derived_ids import derived_ids
from streams.scoring.reasons import contributions, reference, strongest

__all__ = ["Events", "Readings", "RuleReader", "rule_version"]

Vectors = NDArray[np.float32]
_TEXT = 4_000


def rule_version(rule: InsightRule) -> str:
    """Return a hash of the declaration: another threshold is another version."""
    return hashlib.sha256(json.dumps(rule.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Events:
    """What is scored, beside the numbers: each row's own id, dealer, subject and event time."""

    ids: Sequence[str]
    dealers: Sequence[str]
    subjects: Sequence[str]
    times: NDArray[np.int64]


@dataclass(frozen=True)
class Readings:
    """What rules say of some rows of a batch: `rows` says of which.

    For each rule, `ids` are the ids of the insights that the rows would make, and `values` what the rule looks
    at. `told` has by row, where any threshold is passed, what each rule says: `insight_id`, `value`, `text` and
    `reasons`, as the topic `scores` has them. Of the others there is nothing to say.
    """

    rows: NDArray[np.int64]
    ids: Sequence[Sequence[str]] = ()
    values: Sequence[NDArray[np.float64]] = ()
    told: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


class RuleReader:
    """The rules of one served version. Raises ArtifactError for a rule that names what the model has not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        told = session.description
        self._usual = _numbers(reference(told))
        self._inputs = told.inputs
        self._usually = [
            f"(usually {each.shown(usual)})" for each, usual in zip(told.inputs, self._usual, strict=True)
        ]
        self._rules = [(rule, rule_version(rule), *_places(told, rule)) for rule in told.rules]

    def read(
        self, vectors: Vectors, answers: Vectors, events: Events, rows: NDArray[np.int64] | None = None
    ) -> Readings:
        """Return what the rules say of `rows` of a batch; of all where none are named."""
        if rows is None:
            rows = np.arange(len(answers))
        elif len(rows) < len(answers):
            vectors, answers = vectors[rows], answers[rows]
            at = rows.tolist()
            ids, dealers, subjects = (
                [column[i] for i in at] for column in (events.ids, events.dealers, events.subjects)
            )
            events = Events(ids, dealers, subjects, events.times[rows])
        values = [self._values(output, over, vectors, answers) for _, _, output, over in self._rules]
        insights = [
            derived_ids(f"{rule.name}@{version}", events.subjects, events.times, events.ids)
            for rule, version, _, _ in self._rules
        ]
        passed = [_beyond(rule, seen) for (rule, *_), seen in zip(self._rules, values, strict=True)]
        # Reasons cost one answer an input, so they are sought only where somebody may be told.
        beyond = np.flatnonzero(np.logical_or.reduce(passed)) if passed else np.empty(0, np.int64)
        told: dict[int, list[dict[str, Any]]] = {}
        if len(beyond):
            moved = contributions(self._session, vectors[beyond], answers[beyond])
            vectors, answers = vectors[beyond], answers[beyond]
            said = [
                self._told(
                    at, [insights[at][row] for row in beyond.tolist()], values[at][beyond], passed[at][beyond],
                    vectors, answers, moved, events, beyond.tolist(),
                )
                for at in range(len(self._rules))
            ]  # fmt: skip
            told = dict(
                zip(rows[beyond].tolist(), [list(each) for each in zip(*said, strict=True)], strict=True)
            )
        return Readings(rows, insights, values, told)

    def _told(
        self, at: int, ids: Sequence[str], values: NDArray[np.float64], beyond: NDArray[np.bool_],
        vectors: Vectors, answers: Vectors, moved: NDArray[np.float64], events: Events, rows: Sequence[int],
    ) -> list[dict[str, Any]]:  # fmt: skip
        """What one rule says of each of `rows`, with its reasons where it is beyond the threshold."""
        rule, _, output, _ = self._rules[at]
        by = moved[:, :, output]
        chosen, given, moves = strongest(by, rule.direction == "above"), _numbers(vectors), by.tolist()
        scores, seen, passes = answers[:, output].tolist(), _numbers(values), beyond.tolist()
        found = []
        for i, row in enumerate(rows):
            text, reasons = "", []
            if passes[i]:
                reasons = [
                    {
                        "input": self._inputs[each].name, "value": given[i][each], "usual": self._usual[each],
                        "by": moves[i][each],
                    }
                    for each in chosen[i]
                ]  # fmt: skip
                words = [self._words(each, given[i][each]) for each in chosen[i]]
                text = _text(rule, scores[i], events.dealers[row], events.subjects[row], words)
            found.append({"insight_id": ids[i], "value": seen[i], "text": text, "reasons": reasons})
        return found

    def _words(self, at: int, value: float | None) -> str:
        return f"{self._inputs[at].name} {self._inputs[at].shown(value)} {self._usually[at]}"

    def passed(self, vectors: Vectors, answers: Vectors) -> NDArray[np.bool_]:
        """Return for each row whether it is beyond the threshold of any rule."""
        found = np.zeros(len(answers), bool)
        for rule, _, output, over in self._rules:
            found |= _beyond(rule, self._values(output, over, vectors, answers))
        return found

    def _values(self, output: int, over: int, vectors: Vectors, answers: Vectors) -> NDArray[np.float64]:
        values = answers[:, output].astype(np.float64)
        if over < 0:
            return values
        lower = vectors[:, over].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.where(lower == 0, np.nan, values / lower)


def _places(told: Description, rule: InsightRule) -> tuple[int, int]:
    names = [each.name for each in told.inputs]
    if rule.output not in told.outputs or (rule.over and rule.over not in names):
        missing = rule.over if rule.output in told.outputs else rule.output
        raise ArtifactError(f"{told.name} {told.version}: rule {rule.name} names {missing}, which there is not")
    try:
        _text(rule, 0.5, "d", "s", [])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ArtifactError(
            f"{told.name} {told.version}: the message of rule {rule.name} cannot be written: {error}"
        ) from error
    return told.outputs.index(rule.output), names.index(rule.over) if rule.over else -1


def _beyond(rule: InsightRule, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        found: NDArray[np.bool_] = (
            values > rule.threshold if rule.direction == "above" else values < rule.threshold
        )
    return found & np.isfinite(values)


def _text(rule: InsightRule, score: float, dealer: str, subject: str, reasons: Sequence[str]) -> str:
    told = "; ".join(reasons) or "no single input stands out"
    words = rule.message.format(
        subject_id=subject, dealer_id=dealer, score=score, threshold=rule.threshold, reasons=told
    )
    return words[:_TEXT]


def _numbers(values: NDArray[Any]) -> list[Any]:
    """Nested lists of floats, None for what is not finite."""
    found = values.astype(np.float64).astype(object)
    found[~np.isfinite(values)] = None
    numbers: list[Any] = found.tolist()
    return numbers
