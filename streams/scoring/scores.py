"""A batch of scores of one version, by column, and how they become records of the topic `scores`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.row_writer import Double, Flag, Part, Piece, RowWriter, Texts, longs, text, texts
from connectors.varints import varint
from models.artifact import Description
from models.rules import InsightRule
from schemas.catalogue import topic
from schemas.codec import frame
from streams.scoring.readings import Readings, rule_version

__all__ = ["ScoreWriter", "Scores"]

_TOPIC = "scores"
_ID_LENGTH = varint(32)
"""Of a derived id."""
_DOUBLE = Struct("<d")


@dataclass(frozen=True)
class Scores:
    """Row i of every column is one score.

    `rows` says which of the rows that were given each one is of. `counts` says whether somebody acts on it:
    what does not count is marked as shadow. `keys` are the entity's, `times` event times, ms. `sampled` says
    whether a row is of an even sample.
    """

    rows: NDArray[np.int64]
    event_ids: Sequence[str]
    keys: Mapping[str, Sequence[str]]
    subjects: Sequence[str]
    causes: Sequence[str]
    times: NDArray[np.int64]
    counts: NDArray[np.bool_]
    sampled: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    answers: NDArray[np.float32]
    latency_ms: float
    readings: Readings

    def __len__(self) -> int:
        return len(self.rows)

    def counting(self) -> Iterator[tuple[str, int]]:
        """Yield the subject and the event time of each score that counts."""
        for subject, time_ms, counts in zip(
            self.subjects, self.times.tolist(), self.counts.tolist(), strict=True
        ):
            if counts:
                yield subject, time_ms


class ScoreWriter:
    """Writes scores of one version as `schemas.codec` would write a record of each, to the byte.

    A record has a name for each input and each output, and what each rule says: most of it is the same in all
    records of a version, and is laid out once.
    """

    def __init__(self, told: Description, decided_at: int) -> None:
        schema = topic(_TOPIC).schema
        assert schema is not None
        self._told, self._decided_at = told, decided_at
        self._fields = [each["name"] for each in schema["fields"]]
        self._rules: list[_Rule] = []
        for rule in reversed(told.rules):  # each is followed by the next one's head
            self._rules.insert(0, _Rule(rule, self._rules[0].head if self._rules else b"\0"))
        self._front = varint(len(self._rules)) + self._rules[0].head if self._rules else b""
        self._score = told.outputs.index(told.score)
        self._texts = Texts()
        self._writers: dict[tuple[int, tuple[str, ...]], RowWriter] = {}

    def write(self, scores: Scores, schema_id: int) -> list[bytes]:
        """Return the message of each score."""
        keys, known = scores.keys, self._texts
        answers = scores.answers.astype(np.float64)
        columns: dict[str, Any] = {
            "event_id": list(map(str.encode, scores.event_ids)),
            "dealer_id": known.of(keys["dealer_id"]),
            "subject_id": texts(scores.subjects),
            "score": answers[:, self._score],
            "latency_ms": np.full(len(scores), scores.latency_ms),
            "shadow": ~scores.counts,
            "sampled": scores.sampled,
            "cause_id": texts(scores.causes),
            "event_time": longs(scores.times),
        }
        columns |= {_input(i): each for i, each in enumerate(scores.vectors.T.astype(np.float64))}
        columns |= {_output(i): each for i, each in enumerate(answers.T)}
        columns |= {_key(name): known.of(column) for name, column in keys.items()}
        columns |= self._spoken(scores.readings, len(scores))
        return self._writer(schema_id, tuple(keys)).write(len(scores), columns)

    def _writer(self, schema_id: int, keys: tuple[str, ...]) -> RowWriter:
        found = self._writers.get((schema_id, keys))
        if found is None:
            told = self._told
            inputs = [(each.name, Double(_input(i), nullable=True)) for i, each in enumerate(told.inputs)]
            outputs = [(name, Double(_output(i))) for i, name in enumerate(told.outputs)]
            rules = [each for i in range(len(told.rules)) for each in _reading(i)]
            parts: dict[str, list[Part]] = {
                "event_id": [_ID_LENGTH, Piece("event_id")],
                "model": [text(told.name)],
                "model_version": [text(told.version)],
                "subject_type": [text(told.subject_type)],
                "score": [Double("score")],
                "features": _map(inputs),
                "latency_ms": [Double("latency_ms")],
                "shadow": [Flag("shadow")],
                "outputs": _map(outputs),
                "entity": _map([(name, Piece(_key(name))) for name in keys]),
                "decided_at": [varint(self._decided_at)],
                "readings": [Piece("readings"), *map(Piece, rules)],
                "sampled": [Flag("sampled")],
            }
            ready = {name: [Piece(name)] for name in self._fields if name not in parts}
            parts |= ready
            found = self._writers[schema_id, keys] = RowWriter(
                [frame(schema_id), *(part for name in self._fields for part in parts[name])]
            )
        return found

    def _spoken(self, readings: Readings, count: int) -> dict[str, list[bytes]]:
        """The field `readings`: what stands in front of the first rule's id, then each id and what follows it.

        Rows of which nothing is said, and those beyond a threshold, have all of it in front.
        """
        at = readings.rows.tolist() if self._rules else []
        front = [self._front] * len(at)
        columns = {"readings": front if len(at) == count else _spread(front, at, count, b"\0")}
        for i, rule in enumerate(self._rules):
            found = list(map(str.encode, readings.ids[i])), rule.silent(readings.values[i])
            for name, some in zip(_reading(i), found, strict=True):
                columns[name] = some if len(at) == count else _spread(some, at, count)
        for row, told in readings.told.items():
            for column in columns.values():
                column[row] = b""
            said = [rule.said(each) for rule, each in zip(self._rules, told, strict=True)]
            columns["readings"][row] = b"".join((varint(len(told)), *said, b"\0"))
        return columns


class _Rule:
    """How a rule's readings are written. `after` follows one that is below the threshold."""

    def __init__(self, rule: InsightRule, after: bytes) -> None:
        self.head = text(rule.name) + text(rule_version(rule)) + _ID_LENGTH
        self._kind = text(rule.severity) + bytes([rule.direction == "above"])
        self._limits = np.array([rule.threshold, rule.hysteresis], "<f8").tobytes()
        self._limits += varint(int(rule.cool_down_ms))
        self._silent = RowWriter(
            [self._kind, Double("value", nullable=True), self._limits, text(""), b"\0", after]
        )

    def silent(self, values: NDArray[np.float64]) -> list[bytes]:
        """Return what follows the ids of readings below the threshold."""
        return self._silent.write(len(values), {"value": values})

    def said(self, reading: Mapping[str, Any]) -> bytes:
        """Return a whole reading."""
        reasons = reading["reasons"]
        told = [varint(len(reasons)), *map(_reason, reasons)] if reasons else []
        return b"".join(
            (
                self.head, reading["insight_id"].encode(), self._kind, _nullable(reading["value"]),
                self._limits, text(reading["text"]), *told, b"\0",
            )
        )  # fmt: skip


def _reason(reason: Mapping[str, Any]) -> bytes:
    numbers = _nullable(reason["value"]) + _nullable(reason["usual"]) + _DOUBLE.pack(reason["by"])
    return text(reason["input"]) + numbers


def _nullable(value: float | None) -> bytes:
    return b"\0" if value is None else b"\x02" + _DOUBLE.pack(value)


def _reading(at: int) -> tuple[str, str]:
    return f"id {at}", f"reading {at}"


def _spread(values: Sequence[bytes], rows: Sequence[int], count: int, others: bytes = b"") -> list[bytes]:
    found = [others] * count
    for row, each in zip(rows, values, strict=True):
        found[row] = each
    return found


def _map(entries: Sequence[tuple[str, Part]]) -> list[Part]:
    """A map as one block, if there is anything in it."""
    if not entries:
        return [b"\0"]
    return [varint(len(entries)), *(part for name, value in entries for part in (text(name), value)), b"\0"]


def _input(at: int) -> str:
    return f"input {at}"


def _output(at: int) -> str:
    return f"output {at}"


def _key(name: str) -> str:
    return f"key {name}"
