"""A batch of scores of one version, by column, and how they become records of the topic `scores`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from fastavro import parse_schema, schemaless_writer
from numpy.typing import NDArray

from connectors.row_writer import Double, Flag, Part, Piece, RowWriter, Texts, longs, text, texts
from connectors.varints import varint
from models.artifact import Description
from models.rules import InsightRule
from schemas.catalogue import topic
from schemas.codec import frame, plain
from streams.scoring.readings import Readings, rule_version

__all__ = ["ScoreWriter", "Scores"]

_TOPIC = "scores"
_ID_LENGTH = varint(32)
"""Of a derived id."""


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
        readings = next(each["type"] for each in schema["fields"] if each["name"] == "readings")
        self._readings = parse_schema(plain(readings))
        self._silent = RowWriter(_rules(told.rules))
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
            "readings": self._spoken(scores.readings, len(scores)),
            "sampled": scores.sampled,
            "cause_id": texts(scores.causes),
            "event_time": longs(scores.times),
        }
        columns |= {_input(i): each for i, each in enumerate(scores.vectors.T.astype(np.float64))}
        columns |= {_output(i): each for i, each in enumerate(answers.T)}
        columns |= {_key(name): known.of(column) for name, column in keys.items()}
        return self._writer(schema_id, tuple(keys)).write(len(scores), columns)

    def _writer(self, schema_id: int, keys: tuple[str, ...]) -> RowWriter:
        found = self._writers.get((schema_id, keys))
        if found is None:
            told = self._told
            inputs = [(each.name, Double(_input(i), nullable=True)) for i, each in enumerate(told.inputs)]
            outputs = [(name, Double(_output(i))) for i, name in enumerate(told.outputs)]
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
                "sampled": [Flag("sampled")],
            }
            ready = {name: [Piece(name)] for name in self._fields if name not in parts}
            parts |= ready
            found = self._writers[schema_id, keys] = RowWriter(
                [frame(schema_id), *(part for name in self._fields for part in parts[name])]
            )
        return found

    def _spoken(self, readings: Readings, count: int) -> list[bytes]:
        """The field `readings` of each row."""
        found = [b"\0"] * count
        if not self._told.rules or not len(readings.rows):
            return found
        columns: dict[str, Any] = {}
        for i in range(len(self._told.rules)):
            columns[f"id {i}"] = list(map(str.encode, readings.ids[i]))
            columns[f"value {i}"] = readings.values[i]
        silent = self._silent.write(len(readings.rows), columns)
        if len(silent) == count:
            found = silent
        else:
            for row, each in zip(readings.rows.tolist(), silent, strict=True):
                found[row] = each
        for row, some in readings.told.items():
            out = BytesIO()
            schemaless_writer(out, self._readings, some)
            found[row] = out.getvalue()
        return found


def _map(entries: Sequence[tuple[str, Part]]) -> list[Part]:
    """A map as one block, if there is anything in it."""
    if not entries:
        return [b"\0"]
    return [varint(len(entries)), *(part for name, value in entries for part in (text(name), value)), b"\0"]


def _rules(rules: Sequence[InsightRule]) -> list[Part]:
    """What rules say where no threshold is passed."""
    parts: list[Part] = [varint(len(rules))]
    for i, rule in enumerate(rules):
        parts += [
            text(rule.name), text(rule_version(rule)), _ID_LENGTH, Piece(f"id {i}"), text(rule.severity),
            bytes([rule.direction == "above"]), Double(f"value {i}", nullable=True),
            np.array([rule.threshold, rule.hysteresis], "<f8").tobytes(), varint(int(rule.cool_down_ms)),
            text(""), b"\0",
        ]  # fmt: skip
    return [*parts, b"\0"]


def _input(at: int) -> str:
    return f"input {at}"


def _output(at: int) -> str:
    return f"output {at}"


def _key(name: str) -> str:
    return f"key {name}"
