"""The index against the embeddings topic: which vectors there are of each kind, and that they are right.

A row of the index says which offset it is from. It must be a record of the log, with that vector, of its kind
and under the encoder that the index has for that kind; and no older than the newest record of its key before
the index's position. So the index may be read while it moves: what came meanwhile is in the log that is read
after it.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from connectors.registry import Registry
from connectors.vectors import Encoding, Kinds
from models.embedding.topics import TOPICS
from schemas.codec import Decoder
from schemas.errors import ContractError, DealerIQError
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding
from streams.verify.messages import messages

__all__ = ["IndexAwayError", "IndexCheck", "verify_vectors"]

Ask = Callable[[str, Any], Any]
"""Asks the search process: path and body of a request → the JSON of its answer."""
_ASKED = 500
_SAMPLED = 500
_SAME = 0.9999  # cosine: the index keeps directions, in float32


class IndexAwayError(DealerIQError):
    """The search process does not answer, so its index cannot be compared."""

    remedy = "Start it (search.enabled), or verify without it: leave search.url unset."
    exit_code = 4


@dataclass
class IndexCheck:
    """What was compared: entries of the index, vectors looked at by kind, and what was found."""

    entries: int = 0
    vectors: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Key:
    """The records of one key: the newest before the index's position, and every one by offset."""

    before: int = -1
    deleted: bool = True
    by_offset: dict[int, dict[str, Any] | None] = field(default_factory=dict)


def verify_vectors(
    ask: Ask, broker: Broker, registry: Registry, *, sampled: bool, pause: Callable[[], None]
) -> IndexCheck:
    """Compare every vector, or some hundred of them. Raises IndexAwayError, KafkaUnavailableError."""
    while (looked := _look(ask, sampled, pause)) is None:
        pass  # another version of the index took over: one is compared, not some of each
    about, chosen, rows = looked
    kinds = {name: Encoding(**each) for name, each in about["kinds"].items()}
    check = IndexCheck(entries=len(about["ids"]))
    positions = {name: _positions(about["positions"], name) for name in TOPICS}
    keys: dict[tuple[str, str], _Key] = {}
    for name, at in positions.items():
        ends = broker.ends(name)
        check.findings += _impossible(name, at, ends)
        keys |= _read(broker, registry, name, ends, at, set(chosen) if sampled else None, pause)
    for key, row in rows.items():
        check.findings += _compare(key, row, keys.get((row["topic"], key), _Key()), kinds)
        check.vectors[row["kind"] or "none"] += 1
    if not sampled:
        for name, key in keys.keys() - {(row["topic"], key) for key, row in rows.items()}:
            state = keys[name, key]
            records = state.by_offset
            later = any(record is None and at > state.before for at, record in records.items())
            other = all(each is None or not _wanted(each, kinds) for each in records.values())
            if not (state.deleted or later or other):
                check.findings.append(_finding("missing-vector", name, key, "a vector", None, state.before))
    return check


def _look(
    ask: Ask, sampled: bool, pause: Callable[[], None]
) -> tuple[dict[str, Any], list[str], dict[str, dict[str, Any]]] | None:
    """What the index says of itself, the ids to be compared, and their rows; None where it was replaced."""
    about = ask("/index", None)
    ids: list[str] = about["ids"]
    chosen = sorted(ids)[:: max(1, len(ids) // _SAMPLED)] if sampled else ids
    rows: dict[str, dict[str, Any]] = {}
    for start in range(0, len(chosen), _ASKED):
        answer = ask("/entries", {"ids": chosen[start : start + _ASKED]})
        if answer["version"] != about["version"]:
            return None
        rows |= {each["id"]: each for each in answer["entries"]}
        pause()
    return about, chosen, rows


def _positions(known: Mapping[str, int], topic: str) -> Ends:
    """The index's position in one topic."""
    parts = ((name.rpartition(":"), at) for name, at in known.items())
    return {int(number): at for (name, _, number), at in parts if name == topic}


def _impossible(topic: str, positions: Ends, ends: Ends) -> Iterator[Finding]:
    for partition, offset in positions.items():
        if offset > ends.get(partition, 0):
            what = f"partition {partition}"
            expected = f"{ends.get(partition, 0)} or less"
            yield Finding("position", "index", topic, (), what, "", expected, offset)


def _wanted(record: dict[str, Any], kinds: Kinds) -> bool:
    """Whether a record's vector belongs into the index."""
    return record["kind"] in kinds and kinds[record["kind"]].accepts(record["encoder"])


def _compare(key: str, row: dict[str, Any], state: _Key, kinds: Kinds) -> Iterator[Finding]:
    name, offset = row["topic"], row["offset"]
    record = state.by_offset.get(offset)
    if record is None and any(at > offset for at in state.by_offset):
        return  # compaction has let it go: a newer record of the key is there, and will be folded
    if record is None:
        yield _finding("extra-vector", name, key, "a record at its offset", offset, state.before)
    elif offset < state.before:
        newest = "none: it is deleted" if state.deleted else f"of offset {state.before}"
        yield _finding("vector", name, key, newest, f"of offset {offset}", state.before)
    elif record["kind"] != row["kind"] or not _wanted(record, kinds):
        wanted = kinds.get(row["kind"], "no such kind")
        found = f"{record['kind']} of {record['encoder']}"
        yield _finding("vector", name, key, f"{row['kind']} of {wanted}", found, offset)
    elif (cosine := _cosine(record["vector"], row["vector"])) < _SAME:
        yield _finding("vector", name, key, "the vector of its record", f"cosine {cosine:.4f}", offset)


def _cosine(record: bytes, row: str) -> float:
    one, other = np.frombuffer(record, "<f4"), np.frombuffer(base64.b64decode(row), "<f4")
    if one.shape != other.shape:
        return -1.0
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _finding(kind: Any, topic: str, key: str, expected: Any, found: Any, offset: int) -> Finding:
    return Finding(kind, "index", topic, (key,), "vector", "", expected, found, f"offset {offset}")


def _read(
    broker: Broker,
    registry: Registry,
    topic: str,
    ends: Ends,
    positions: Ends,
    wanted: set[str] | None,
    pause: Callable[[], None],
) -> dict[tuple[str, str], _Key]:
    """The records of each key; of the wanted ones only, where that is given."""
    decoder, found = Decoder.of_topic(topic, registry.schema), dict[tuple[str, str], _Key]()
    for partition, key, offset, value in messages(broker, topic, ends, pause):
        if wanted is not None and key not in wanted:
            continue
        state = found.setdefault((topic, key), _Key())
        try:
            state.by_offset[offset] = None if value is None else decoder.decode(value)
        except ContractError:
            continue  # it is a dead letter, and was never in the index
        if offset < positions.get(partition, 0):
            state.before, state.deleted = offset, value is None
    return found
