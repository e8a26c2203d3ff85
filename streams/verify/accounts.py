"""What became of every record: each ends in exactly one outcome, and the outcomes add up.

Of a topic that features are folded from: `applied`, `duplicate`, `dead_letter`, `late` (no window can hold it:
it came after its tiles were gone), `aged` (it was applied, and its tiles have left retention since),
`in_flight` (behind the common position). Of a topic that events are derived from: `applied` (one was derived),
`duplicate`, `dead_letter`, `in_flight`, `waiting` (held in a store until what it is about comes). What is in
none of them is `lost`, and named in a finding.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.dead_letters import dead_letters
from connectors.settings import KafkaSettings
from features.plan import ViewPlan
from schemas.catalogue import topic as declared
from streams.verify.broker import Broker
from streams.verify.findings import Finding
from streams.verify.log import TopicReader
from streams.verify.tiles import TileCheck

__all__ = ["Judged", "Letters", "agent_account", "read_letters", "rejected_findings", "source_account"]

_DAY_MS = 86_400_000
_SAFETY_MS = _DAY_MS


@dataclass(frozen=True)
class Letters:
    """The dead letters of one topic by stage: source (partition, offset) to the CRC-32 of the bytes kept."""

    by_stage: dict[str, dict[tuple[int, int], int]]

    def of(self, prefix: str) -> dict[tuple[int, int], int]:
        """Return those of every stage that begins so."""
        found: dict[tuple[int, int], int] = {}
        for stage, letters in self.by_stage.items():
            if stage.startswith(prefix):
                found |= letters
        return found


def read_letters(kafka: KafkaSettings, topic: str) -> Letters:
    """Read a topic's dead letters to their present end."""
    from zlib import crc32

    by_stage: dict[str, dict[tuple[int, int], int]] = {}
    for each in dead_letters(kafka, topic):
        if each.source_topic == topic and each.source_partition is not None and each.source_offset is not None:
            place = each.source_partition, each.source_offset
            by_stage.setdefault(each.stage, {})[place] = -1 if each.value is None else crc32(each.value)
    return Letters(by_stage)


def rejected_findings(
    broker: Broker, reader: TopicReader, letters: Letters, stage: str, common: Mapping[int, int]
) -> Iterator[Finding]:
    """Every rejected record up to the common position has its dead letter, and only those have one.

    `stage` begins the stage of those who refuse this topic's records; a finding's `feature` names them.
    """
    who = stage.rstrip(".")
    kept = declared(declared(reader.name).dead_letters).retention_ms or 0
    oldest = time.time() * 1000 - kept + _SAFETY_MS
    known = letters.of(stage)
    rejected = {(p, offset): (stamp, crc) for p, offset, stamp, crc in reader.rejected().rows()}
    for (partition, offset), (stamp, crc) in sorted(rejected.items()):
        if offset >= common.get(partition, 0) or stamp < oldest:
            continue
        if crc == -1 and not stage.startswith("flink"):  # an agent counts a tombstone and keeps no letter of it
            continue
        found = known.get((partition, offset))
        if found != crc:
            at = f"{reader.name}[{partition}]@{offset}"
            got = None if found is None else "other bytes"
            yield Finding(
                "missing-letter", "dead letters", f"{reader.name}.dlq", (), who, "", "a dead letter", got, at
            )
    first = broker.firsts(reader.name)
    for partition, offset in sorted(known):
        within = first.get(partition, 0) <= offset < reader.ends.get(partition, 0)
        if within and (partition, offset) not in rejected:
            at = f"{reader.name}[{partition}]@{offset}"
            yield Finding(
                "wrong-letter", "dead letters", f"{reader.name}.dlq", (), who, "", None, "a dead letter", at
            )


@dataclass(frozen=True)
class Judged:
    """A source topic as it was when its views were compared: `common` is the position up to which all must be
    there.
    """

    key: str
    records: int
    events: pl.DataFrame
    rejected: pl.DataFrame
    common: Mapping[int, int]


def source_account(topic: Judged, views: Sequence[ViewPlan], checks: Mapping[str, TileCheck]) -> dict[str, int]:
    """Return how many records of a source topic ended how."""
    if not len(topic.events):
        return {"records": topic.records, "dead_letter": len(topic.rejected)}
    firsts = topic.events.filter(pl.col("_first"))
    number = firsts["_event"].to_numpy()
    applied = np.zeros(len(firsts), bool)
    aged = np.ones(len(firsts), bool)
    for view in views:
        applied |= checks[view.name].applied[number]
        aged &= ~checks[view.name].kept[number]
    aged &= ~applied
    late = aged & _late(topic.key, firsts, views)
    waiting = ~applied & ~aged & _behind(firsts, topic.common)
    outcomes = {
        "applied": int(applied.sum()),
        "duplicate": len(topic.events) - len(firsts),
        "dead_letter": len(topic.rejected),
        "late": int(late.sum()),
        "aged": int((aged & ~late).sum()),
        "in_flight": int(waiting.sum()),
        "lost": int((~applied & ~aged & ~waiting).sum()),
    }
    return {"records": topic.records, **outcomes}


def _behind(events: pl.DataFrame, common: Mapping[int, int]) -> NDArray[np.bool_]:
    """Tell the events that lie behind the common position."""
    if not len(events):
        return np.zeros(0, bool)
    partition = events["_partition"].to_numpy()
    upto = np.array([common.get(p, 0) for p in range(int(partition.max()) + 1)], np.int64)
    return np.asarray(events["_offset"].to_numpy() >= upto[partition])


def _late(key: str, events: pl.DataFrame, views: Sequence[ViewPlan]) -> NDArray[np.bool_]:
    """Tell the events that came, in the log's order, after their key's clock had left their coarsest tile."""
    view = next((each for each in views if each.entity == (key,)), views[0])
    grain, kept = view.grains_ms[-1], view.retention_ms[-1] + view.lateness_ms
    usual = pl.when(pl.col("event_time") <= pl.col("_timestamp") + _DAY_MS).then(pl.col("event_time"))
    clock = usual.cum_max().forward_fill().shift(1).over(list(view.entity), order_by=["_partition", "_offset"])
    gone = pl.col("event_time") // grain * grain + grain + kept <= clock
    return events.select(gone.fill_null(False).alias("late"))["late"].to_numpy()


def agent_account(
    source: TopicReader,
    derived: pl.DataFrame,
    stage: str,
    letters: Mapping[tuple[int, int], int],
    upto: Mapping[int, int],
    whole: bool,
    waiting: Collection[str] = (),
) -> tuple[dict[str, int], list[Finding]]:
    """Return how a topic's records ended at an agent or view, and what is missing or has no cause.

    `upto` is what it had done before `derived`, the `cause_id` of all that it produced, was read; `waiting` are
    the ids that it held between the two. The source was read on afterwards. `whole` says that the source still
    holds its first record.
    """
    events = source.events()
    causes = derived["cause_id"].unique() if len(derived) else pl.Series("cause_id", [], pl.String)
    findings: list[Finding] = []
    known = events["event_id"].unique() if len(events) else causes.clear()
    if whole:
        strange = causes.filter(~causes.is_in(known.implode())).to_list()
        findings += [
            Finding("extra-event", "topic", stage, (), each, "", None, "a derived event") for each in strange
        ]
    account = {"records": source.records, "dead_letter": len(source.rejected())}
    if not len(events):
        return account, findings
    places = pl.DataFrame(
        {"_partition": [p for p, _ in letters], "_offset": [o for _, o in letters], "_letter": True},
        schema={"_partition": pl.Int32, "_offset": pl.Int64, "_letter": pl.Boolean},
    )
    firsts = (
        events.filter(pl.col("_first"))
        .join(places, on=["_partition", "_offset"], how="left", maintain_order="left")
        .with_columns(pl.col("_letter").fill_null(False), _done=pl.col("event_id").is_in(causes.implode()))
    )
    behind = _behind(firsts, upto)
    done, letter = firsts["_done"].to_numpy(), firsts["_letter"].to_numpy()
    held = firsts["event_id"].is_in(list(waiting)).to_numpy() & ~done & ~letter & ~behind
    lost = firsts.filter(pl.Series(~done & ~letter & ~behind & ~held))
    for event, key, partition, offset in lost.select("event_id", source.key, "_partition", "_offset").rows():
        at = f"{source.name}[{partition}]@{offset}"
        findings.append(
            Finding("missing-event", "topic", source.name, (key,), event, "", "a derived event", None, at)
        )
    account = {
        "records": source.records,
        "applied": int(done.sum()),
        "duplicate": len(events) - len(firsts),
        "dead_letter": len(source.rejected()) + int((letter & ~done).sum()),
        "in_flight": int((~done & ~letter & behind).sum()),
        "waiting": int(held.sum()),
        "lost": len(lost),
    }
    return account, findings
