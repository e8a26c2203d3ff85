"""Models against the log: one champion of each, scores by the version of their time, insights told once.

Who was champion when is worked out here once more, from the records alone, and held against the registry's own
fold. A score names the decision that put its version there (`decided_at`): that record must be there, must have
counted, must be of that version and role, and must not have been replaced long before the score was written.
Times are those of the records in Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from connectors.registry import Registry
from connectors.whole import WholeTopic
from models.canary import in_share
from models.lifecycle import TOPIC, Lifecycle
from schemas.codec import Decoder
from schemas.errors import UndecodableError
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding, Kind, Store, moment
from streams.verify.log import TopicReader

__all__ = ["LATE_MS", "ModelCheck", "Reign", "reigns_of", "verify_models"]

LATE_MS = 60_000
"""How long a version may score after another took its place, and how far writers' clocks may differ, ms."""
_SCORES, _INSIGHTS = "scores", "insights"
_SAMPLED = 2_000  # newest records of each partition, in a sample


@dataclass(frozen=True)
class Reign:
    """A version's time in a role: from the record at `at` until `until_ms`, None while it lasts. A challenger's
    scores count for `share` of the subjects.
    """

    model: str
    version: str
    role: str
    at: int
    since_ms: int
    until_ms: int | None = None
    share: float = 0.0


@dataclass
class ModelCheck:
    """What was compared: decisions that count, scores, insights; and what was found."""

    decisions: int = 0
    scores: int = 0
    insights: int = 0
    findings: list[Finding] = field(default_factory=list)


def verify_models(
    broker: Broker, registry: Registry, *, sampled: bool, pause: Callable[[], None]
) -> ModelCheck:
    """Compare all of it, or the newest records. Raises KafkaUnavailableError, RegistryUnavailableError."""
    check = ModelCheck()
    # Insights, scores, decisions: whatever one of them is from is there when it is looked for.
    insights = _read(broker, registry, _INSIGHTS, ["cause_id"], sampled, pause)
    columns = ["model", "model_version", "subject_id", "shadow", "decided_at"]
    scores = _read(broker, registry, _SCORES, columns, sampled, pause)
    records = list(_decisions(broker, registry)) if broker.partitions(TOPIC) else []
    reigns = reigns_of(records)
    check.decisions, check.scores, check.insights = len(reigns), len(scores), len(insights)
    check.findings += _champions(records, reigns)
    check.findings += _judged(scores, {(each.model, each.at): each for each in reigns})
    whole = not sampled and not any(broker.firsts(_SCORES).values())
    check.findings += _told(insights, scores if whole else None)
    return check


def reigns_of(records: Iterable[tuple[int, int, Mapping[str, Any]]]) -> list[Reign]:
    """Return every reign in the order of its beginning, from (offset, time in ms, record of the topic).

    A decision counts if it names the last one that counted (`after`), of a version that was registered and does
    not hold the role already; an id counts once. A challenger's reign also ends when it is made champion,
    rejected or retired.
    """
    found: list[Reign] = []
    open_: dict[tuple[str, str], int] = {}
    versions: dict[str, set[str]] = {}
    last: dict[str, int] = {}
    seen: set[str] = set()

    def end(model: str, role: str, ms: int) -> None:
        place = open_.pop((model, role), None)
        if place is not None:
            was = found[place]
            found[place] = replace(was, until_ms=ms)

    def holder(model: str, role: str) -> str | None:
        place = open_.get((model, role))
        return None if place is None else found[place].version

    for at, ms, record in records:
        model, version, stage = record["model"], record["model_version"], record["stage"]
        known = versions.setdefault(model, set())
        if record["event_id"] in seen or (stage != "registered") != (version in known):
            continue
        champion = holder(model, "champion") == version
        if stage in ("champion", "challenger"):
            share = record.get("share", 0.0) if stage == "challenger" else 0.0
            held = open_.get((model, "challenger"))
            repeated = (
                stage == "challenger"
                and held is not None
                and (found[held].version, found[held].share) == (version, share)
            )
            if record["after"] != last.get(model, -1) or champion or repeated:
                continue
        elif champion:
            continue  # a champion is only ever replaced
        seen.add(record["event_id"])
        known.add(version)
        if holder(model, "challenger") == version:
            end(model, "challenger", ms)
        if stage in ("champion", "challenger"):
            end(model, stage, ms)
            last[model] = at
            open_[model, stage] = len(found)
            found.append(Reign(model, version, stage, at, ms, share=share))
    return found


def _champions(records: list[tuple[int, int, Mapping[str, Any]]], reigns: list[Reign]) -> Iterator[Finding]:
    """Each model that ever had a champion has exactly one, and the registry names the same."""
    fold = Lifecycle()
    for at, _, record in records:
        fold.apply(record, at)
    now: dict[str, list[str]] = {}
    for each in reigns:
        if each.role == "champion":
            reigning = now.setdefault(each.model, [])
            if each.until_ms is None:
                reigning.append(each.version)
    for model in sorted(now.keys() | fold.models.keys()):
        expected, found = now.get(model, []), fold.state(model).champion
        if (model in now and len(expected) != 1) or ([found] if found else []) != expected:
            yield _finding("champion", model, (), "", expected, found, "")


def _judged(scores: pl.DataFrame, reigns: Mapping[tuple[str, int], Reign]) -> Iterator[Finding]:
    if not len(scores):
        return
    keys = ["model", "model_version", "shadow", "decided_at"]
    # A system has few reigns and many scores: those of one reign are judged by their first and last.
    span = scores.group_by(keys, maintain_order=True).agg(
        first=pl.col("_timestamp").min(),
        last=pl.col("_timestamp").max(),
        earliest=pl.col("event_id").sort_by("_timestamp").first(),
        latest=pl.col("event_id").sort_by("_timestamp").last(),
        count=pl.len(),
        subjects=pl.col("subject_id").unique(),
    )
    canaries: dict[str, list[Reign]] = {}
    for each in reigns.values():
        if each.share > 0:
            canaries.setdefault(each.model, []).append(each)
    for row in span.iter_rows(named=True):
        role = "in shadow" if row["shadow"] else "to count"
        position = f"decision {row['decided_at']}"
        first, last = ((row["model_version"], row[name]) for name in ("earliest", "latest"))
        reign = reigns.get((row["model"], row["decided_at"]))
        right = reign is not None and reign.version == row["model_version"]
        if reign is None or not right or not _acts(row, reign, canaries.get(reign.model, [])):
            named = "no such decision counts" if reign is None else f"{reign.role} {reign.version}"
            found = f"{row['count']} scores {role}"
            yield _finding("score-version", row["model"], last, role, named, found, position)
            continue
        if row["first"] < reign.since_ms - LATE_MS:
            expected = f"from {moment(reign.since_ms)}"
            yield _finding("score-time", row["model"], first, role, expected, moment(row["first"]), position)
        if reign.until_ms is not None and row["last"] > reign.until_ms + LATE_MS:
            expected = f"until {moment(reign.until_ms)}"
            yield _finding("score-time", row["model"], last, role, expected, moment(row["last"]), position)


def _acts(row: Mapping[str, Any], reign: Reign, canaries: Iterable[Reign]) -> bool:
    """Whether scores are in shadow, or count, as they should: a canary's count for its share, and there the
    champion's are in shadow.
    """
    if row["shadow"] == (reign.role == "challenger"):
        return True
    if reign.role == "challenger":
        beside = [reign]
    else:
        early, late = row["first"] - LATE_MS, row["last"] + LATE_MS
        beside = [c for c in canaries if c.since_ms <= late and (c.until_ms is None or c.until_ms >= early)]
    return all(any(in_share(c.model, subject, c.share) for c in beside) for subject in row["subjects"])


def _told(insights: pl.DataFrame, scores: pl.DataFrame | None) -> Iterator[Finding]:
    """Each insight once by its id, and, where the scores are there, from one that was no shadow's."""
    if not len(insights):
        return
    for row in insights.group_by("event_id", maintain_order=True).len().filter(pl.col("len") > 1).rows():
        yield _finding("duplicate-insight", _INSIGHTS, (row[0],), "", 1, row[1], "")
    if scores is None:
        return
    known = dict(scores.select("event_id", "shadow").unique("event_id").iter_rows()) if len(scores) else {}
    for event_id, cause in insights.unique("event_id").select("event_id", "cause_id").iter_rows():
        if known.get(cause) is not False:
            found = "none" if cause not in known else "a shadow's"
            yield _finding("insight", _INSIGHTS, (event_id,), "cause_id", f"the score {cause}", found, "")


def _decisions(broker: Broker, registry: Registry) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    decoder = Decoder.of_topic(TOPIC, registry.schema)
    whole = WholeTopic(broker.kafka, TOPIC, "dealeriq-verify")
    try:
        for message in whole.records():
            try:
                yield message.offset(), message.timestamp()[1], decoder.decode(message.value())
            except UndecodableError:
                continue  # it says nothing to anyone
    finally:
        whole.close()


def _read(
    broker: Broker, registry: Registry, topic: str, columns: list[str], sampled: bool,
    pause: Callable[[], None],
) -> pl.DataFrame:  # fmt: skip
    ends: Ends = broker.ends(topic)
    reader = TopicReader(broker, registry, topic, columns, pause)
    if sampled:
        reader.ends = {partition: max(end - _SAMPLED, 0) for partition, end in ends.items()}
    reader.read(ends)
    return reader.events()


def _finding(
    kind: Kind, view: str, entity: tuple[str, ...], what: str, expected: Any, found: Any, position: str
) -> Finding:
    store: Store = "topic"
    return Finding(kind, store, view, entity, what, "", expected, found, position)
