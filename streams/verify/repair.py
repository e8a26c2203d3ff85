"""Write anew what differs, and nothing else: rows from the log, positions from what their view has committed.

A row is written only if its version is still the one that was read: what its view wrote meanwhile stands, and
is compared by the next run. A row from the log holds every event up to the end that was read, so tiles that
Flink is still to emit are older and change nothing, until they have more.
"""

from __future__ import annotations

import secrets
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from features.keys import entity_key, timestamp_proto, value_proto
from features.keys import field as hash_field
from features.plan import ViewPlan
from features.tiles import Tile, double_fields, encode, sketch_fields
from streams.verify.findings import Finding
from streams.verify.online import Entity, Row
from streams.verify.positions import CLOCK_KEY, VIEW_GROUP
from streams.verify.tiles import partials
from streams.verify.verifier import Verifier

__all__ = ["Repair", "Repairer"]

# KEYS: the row. ARGV: field of the version, the version read, then names and values to set; no value to set
# means delete the named fields. Returns 1, or 0 where someone else wrote in between.
_ROW = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == 'delete' then
  redis.call('HDEL', KEYS[1], unpack(ARGV, 4))
else
  redis.call('HSET', KEYS[1], unpack(ARGV, 4))
end
return 1
"""
# KEYS: the hash or key. ARGV: field ('' for a plain key), the value read, the new value.
_VALUE = """
if ARGV[1] == '' then
  if (redis.call('GET', KEYS[1]) or '') ~= ARGV[2] then return 0 end
  redis.call('SET', KEYS[1], ARGV[3])
else
  if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return 1
"""
_ROWS = frozenset(
    {"missing-row", "extra-row", "unreadable-row", "missing-field", "missing-tile", "extra-tile", "tile"}
    | {"behind", "value", "time"}
)


@dataclass
class Repair:
    """One thing to be written: `action` is write, delete or move; `done` once it was."""

    action: str
    store: str
    view: str
    entity: Entity = ()
    detail: str = ""
    done: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def line(self) -> str:
        """Return it as one line for people."""
        who = f" ({', '.join(self.entity)})" if self.entity else ""
        state = "done" if self.done else self.note or "not done"
        return f"repair: {self.action} {self.store} {self.view}{who} {self.detail}: {state}"


class Repairer:
    """Repairs what a verifier found in its last run."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier, self._store, self._plan = verifier, verifier.store, verifier.plan
        self._row = self._store.register_script(_ROW)
        self._value = self._store.register_script(_VALUE)

    def beyond(self) -> dict[str, int]:
        """Return how many findings of each kind no repair mends: what stands in a topic stays there."""
        return dict(Counter(each.kind for each in self._verifier.findings if self._stays(each)))

    def _stays(self, finding: Finding) -> bool:
        if finding.kind == "position" and finding.store == "online":
            return not list(self._position(finding))
        return finding.store in ("topic", "graph", "dead letters") and finding.kind != "missing-letter"

    def plan(self) -> list[Repair]:
        """Return what would be written."""
        return [repair for repair, _ in self._work()]

    def execute(self) -> list[Repair]:
        """Write it, each guarded by what was read; return what was done and what was left alone."""
        repairs = []
        for repair, act in self._work():
            repair.done = bool(act())
            if not repair.done:
                repair.note = "left alone: it was written meanwhile"
            repairs.append(repair)
        return repairs

    def _work(self) -> Iterator[tuple[Repair, Any]]:
        for view in self._plan.views.values():
            compared = self._verifier.compared.get(view.name)
            wrong = {} if compared is None else _by_entity(compared.findings)
            if wrong:
                yield from self._rows(view, wrong)
        for finding in self._verifier.findings:
            if finding.kind == "position" and finding.store == "online":
                yield from self._position(finding)
            elif finding.kind == "clock":
                yield self._clock(finding)
        yield from self._lake()
        missing = [each for each in self._verifier.findings if each.kind == "missing-letter"]
        if missing:
            from streams.verify.repair_letters import letter_repairs

            for topic, detail, act in letter_repairs(self._verifier.broker, self._verifier.registry, missing):
                yield Repair("write", "dead letters", topic, (), detail), act

    def _lake(self) -> Iterator[tuple[Repair, Any]]:
        verifier = self._verifier
        if verifier.lake is None or not any(check.findings for check in verifier.tables.values()):
            return
        from streams.verify.repair_lake import lake_repairs

        for topic, check in verifier.tables.items():
            for action, detail, act in lake_repairs(verifier.lake, verifier.broker, verifier.registry, check):
                yield Repair(action, "lake", topic, (), detail), act

    def _rows(self, view: ViewPlan, wrong: Mapping[Entity, Sequence[Finding]]) -> Iterator[tuple[Repair, Any]]:
        events, online = self._verifier.fresh(view, wrong)
        rows = {row.entity: row for row in online.rows}
        built = rows_from_log(view, events, int(time.time() * 1000))
        for entity, findings in sorted(wrong.items()):
            row = rows.get(entity)
            kinds = ", ".join(sorted({each.kind for each in findings}))
            tiles, latest = built.get(entity, ([], 0))
            action = "write" if tiles else "delete"
            detail = f"{len(tiles)} tiles ({kinds})"
            yield (
                Repair(action, "online", view.name, entity, detail),
                self._writing(view, entity, row, tiles, latest),
            )

    def _writing(
        self, view: ViewPlan, entity: Entity, row: Row | None, tiles: Sequence[Tile], latest: int
    ) -> Any:
        names = [hash_field(view.name, "tiles"), f"_ts:{view.name}".encode(), f"_version:{view.name}".encode()]
        key = entity_key(view, dict(zip(view.entity, entity, strict=True)), self._plan.project)
        read = (row.version if row is not None else None) or b""
        if not tiles:
            args: list[Any] = [names[2], read, "delete", *names]
        else:
            version = b"repair-%s" % secrets.token_hex(8).encode()
            values = [value_proto(encode(tiles, view)), timestamp_proto(latest), version]
            args = [
                names[2],
                read,
                "write",
                *(each for pair in zip(names, values, strict=True) for each in pair),
            ]
        return lambda: self._row(keys=[key], args=args)

    def _position(self, finding: Finding) -> Iterator[tuple[Repair, Any]]:
        partition = int(finding.feature.removeprefix("partition "))
        topic = finding.view
        view = next(each for each in self._plan.views.values() if each.topic == topic)
        held = self._verifier.broker.committed(VIEW_GROUP, topic).get(partition)
        if held is None or self._verifier.broker.ends(topic).get(partition, 0) < held:
            return
        name = f"{topic}:{partition}"
        read = "" if finding.found is None else str(finding.found)
        detail = f"partition {partition}: {finding.found} to {held}"
        yield (
            Repair("move", "online", topic, (), detail),
            lambda: self._value(keys=[f"dealeriq:position:{view.name}"], args=[name, read, held]),
        )

    def _clock(self, finding: Finding) -> tuple[Repair, Any]:
        read = str(finding.found) if finding.found else ""
        detail = f"{finding.found} to {finding.expected}"
        return Repair("move", "online", CLOCK_KEY, (), detail), lambda: self._value(
            keys=[CLOCK_KEY], args=["", read, finding.expected]
        )


def rows_from_log(view: ViewPlan, events: pl.DataFrame, now_ms: int) -> dict[Entity, tuple[list[Tile], int]]:
    """Return the tiles and the time of each entity, from its events alone."""
    if not len(events):
        return {}
    keys = list(view.entity)
    latest = events.group_by(keys).agg(_latest=pl.min_horizontal(pl.col("event_time").max(), pl.lit(now_ms)))
    events = events.join(latest, on=keys).sort("event_time", "_partition", "_offset")
    built: dict[Entity, tuple[list[Tile], int]] = {
        row[:-1]: ([], row[-1]) for row in latest.select(*keys, "_latest").rows()
    }
    doubles, sketches = double_fields(view), sketch_fields(view)
    coupons = {name: f"_coupon_{name.removesuffix('_distinct')}" for name in sketches}
    for grain, kept in zip(view.grains_ms, view.retention_ms, strict=True):
        hop = pl.col("event_time") // grain * grain
        placed = events.with_columns(_hop=hop).filter(pl.col("_hop") > pl.col("_latest") - kept - grain)
        if grain != view.grains_ms[0]:  # the newest coarse tile comes when its hour or day is over
            placed = placed.filter(pl.col("_hop") + grain <= pl.col("_latest"))
        grouped = placed.group_by([*keys, "_hop"]).agg(
            n=pl.len(), latest=pl.col("event_time").max(),
            places=pl.struct("_partition", "_offset"), **partials(view),
            **{f"{name}_coupons": pl.col(column).drop_nulls() for name, column in coupons.items()},
        )  # fmt: skip
        for row in grouped.iter_rows(named=True):
            tile = Tile(
                grain_s=grain // 1000,
                hop_ms=row["_hop"],
                n=row["n"],
                doubles=tuple(float("nan") if row[name] is None else float(row[name]) for name in doubles),
                sketches=tuple(_sketch(row[f"{name}_coupons"]) for name in sketches),
                max_event_time=row["latest"],
                positions=_positions(row["places"]),
            )
            built[tuple(row[key] for key in keys)][0].append(tile)
    return built


def _sketch(coupons: Iterable[int]) -> bytes:
    best: dict[int, int] = {}
    for coupon in coupons:
        best[coupon >> 6] = max(coupon, best.get(coupon >> 6, 0))
    return struct.pack(f"<{len(best)}I", *sorted(best.values()))


def _positions(places: Iterable[Mapping[str, int]]) -> tuple[int, ...]:
    last: dict[int, int] = {}
    for place in places:
        partition, offset = place["_partition"], place["_offset"]
        last[partition] = max(offset, last.get(partition, -1))
    return tuple(last.get(partition, -1) for partition in range(max(last) + 1))


def _by_entity(findings: Iterable[Finding]) -> dict[Entity, list[Finding]]:
    found: dict[Entity, list[Finding]] = {}
    for each in findings:
        if each.kind in _ROWS:
            found.setdefault(each.entity, []).append(each)
    return found
