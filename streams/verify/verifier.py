"""Verify every store against the log, on the running system.

1. The source topics are read to their ends, in bulk; for a sample what the lake has of them comes from there.
2. The common position is found (`positions`): everything before it must be stored.
3. The online rows are read, then what came to the topics meanwhile: no tile can reach further than what was
   read.
4. Each tile must hold exactly the events up to its own positions, each event up to the common position must be
   in its tiles, each feature must be what its window gives.
5. What differs is read once more a moment later: an event of two dealers' partitions may be on its way to a
   product's tile. What still differs is a finding, if it differs from the topic itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from connectors.lake import Root, default_topics
from connectors.registry import Registry
from connectors.settings import KafkaSettings
from features.plan import Plan, ViewPlan
from streams.verify.accounts import Judged, read_letters, rejected_findings, source_account
from streams.verify.broker import Broker, Ends
from streams.verify.comparison import Compared, compare_view, of_entities, same_rows, settle
from streams.verify.derived import account_for_derived
from streams.verify.findings import Finding, Report
from streams.verify.lot import Lot
from streams.verify.online import Entity, OnlineRows, read_rows, scan_entities
from streams.verify.positions import CLOCK_KEY, Positions, clock_findings
from streams.verify.sources import Sources

if TYPE_CHECKING:
    from neo4j import Driver

    from streams.verify.hybrid import HybridSource
    from streams.verify.lake import LakeCheck

__all__ = ["Verifier"]

_LOOK_S = 1.0
# What a row lacks may be on its way; of a view whose entities gather several keys' events, anything may.
_LACKING = {"behind", "missing-tile", "missing-row"}
_TABLES = 3  # of the lake, in a sample


@dataclass
class Verifier:
    """Verifies one system.

    Args:
        kafka: where the topics are.
        registry: whose schemas.
        store: a `redis.Redis` whose answers are bytes.
        plan: the compiled feature plan.
        lake: where the lake is; None for a system without one.
        lake_topics: what is kept there; None for all that a lake keeps by default.
        graph: a driver of Neo4j and the database of the graph; None for a system without one.
        index: asks the search process about its index; None for a system without one.
        hybrid: what fuses vectors of several kinds; None for a system without it.
        progress: takes a line about what is being done.
        pause: called between batches, so that a verifier in the background can stand back.
        wait_s: longest wait for the common position to reach what was read.
        patience_s: longest wait for tiles that are on their way; Flink holds none longer than 30 s.
    """

    kafka: KafkaSettings
    registry: Registry
    store: Any
    plan: Plan
    lake: Root | None = None
    lake_topics: Sequence[str] | None = None
    index: Callable[[str, Any], Any] | None = None
    graph: tuple[Driver, str] | None = None
    hybrid: HybridSource | None = None
    progress: Callable[[str], None] = lambda line: None
    pause: Callable[[], None] = lambda: None
    wait_s: float = 15.0
    patience_s: float = 32.0
    broker: Broker = field(init=False)
    sources: Sources = field(init=False)
    tables: dict[str, LakeCheck] = field(default_factory=dict)
    _judged: dict[str, Judged] = field(default_factory=dict)
    compared: dict[str, Compared] = field(default_factory=dict)
    common: dict[str, Ends] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = Broker(self.kafka)
        self.sources = Sources(self.broker, self.registry, self.plan, self.progress, self.pause)

    def run(self, *, sample: int | None = None, at_ms: int | None = None, agents: bool = True) -> Report:
        """Compare all, or `sample` dealers and as many of each other kind of entity, at event time `at_ms`.

        `at_ms` None is the event clock. Raises KafkaUnavailableError, registry and redis errors.
        """
        began = time.monotonic()
        report = Report(sampled=sample)
        positions = Positions(self.broker, self.store, self.plan)
        held = positions.stored()
        there: dict[str, set[Entity]] | None = None
        if sample is not None:
            with report.timed("store"):
                there = scan_entities(self.store, self.plan, self.pause)
            self.sources.lot, self.sources.lake = Lot(self.plan, there, sample), self.lake
        with report.timed("log"):
            self.sources.read()
        with report.timed("position"):
            found = positions.common(self.sources.last(), self.wait_s if sample is None else 0.0, self.pause)
        self.common = found.offsets
        report.add(found.findings)
        self._uncommitted(report, found.reached)
        clock = int(self.store.get(CLOCK_KEY) or 0)
        report.at_ms = clock if at_ms is None else at_ms
        with report.timed("store"):
            if there is None:
                there = scan_entities(self.store, self.plan, self.pause)
            chosen = None if sample is None else self._choose(there)
            online = self._read_store(there if chosen is None else chosen)
        with report.timed("log"):
            self.sources.read()
        self._compare(report, online, chosen)
        self._look_again(report, positions)
        if self.sources.lake is not None and any(each.findings for each in self.compared.values()):
            self._ask_the_log(report, online, chosen)
            self._look_again(report, positions)
        for each in self.compared.values():
            report.add(each.findings)
            report.entities += len(each.online.rows)
            report.tiles += len(each.online.n)
        with report.timed("accounts"):
            if sample is None:
                self._accounts(report)
            if agents and sample is None:
                readers = self.sources.readers
                account_for_derived(
                    report, self.broker, self.registry, self.store, readers, self.progress, self.pause
                )
        if self.lake is not None:
            with report.timed("lake"):
                self._lake(report, self.lake, sample is not None)
        if self.index is not None:
            with report.timed("index"):
                self._index(report, self.index, sample is not None)
        if self.hybrid is not None:
            with report.timed("hybrid"):
                self._hybrid(report, self.hybrid, sample is not None)
        with report.timed("models"):
            self._models(report, sample is not None)
        if self.graph is not None and sample is None:
            with report.timed("graph"):
                self._graph(report, *self.graph)
        with report.timed("positions"):
            if found.reached:
                report.add(positions.findings(held))
            if sample is None:
                now = int(self.store.get(CLOCK_KEY) or 0)
                report.add(clock_findings(self.sources.readers, self.common, clock, now))
        report.positions = {topic: {str(p): o for p, o in by.items()} for topic, by in self.common.items()}
        self.findings = report.findings
        report.seconds = round(time.monotonic() - began, 3)
        return report

    def _uncommitted(self, report: Report, reached: bool) -> None:
        """Where nothing is committed of a topic that has records, nothing is proved to be complete: say so."""
        for topic, reader in self.sources.readers.items():
            if reached and reader.records and not any(self.common.get(topic, {}).values()):
                report.notes.append(f"no Flink job has committed anything of {topic}")
                if report.sampled is None:
                    expected = "a committed position"
                    report.add(
                        [Finding("position", "topic", topic, (), "of the Flink job", "", expected, None)]
                    )

    def fresh(self, view: ViewPlan, entities: Iterable[Entity]) -> tuple[pl.DataFrame, OnlineRows]:
        """Read rows as they are now, then on in the log; return every event of theirs, and the rows."""
        chosen = sorted(entities)
        partitions = len(self.sources.readers[view.source_topic].ends)
        online = read_rows(self.store, view, self.plan.project, chosen, partitions, self.pause)
        self.sources.read()
        events = self.sources.events(view.source_topic)
        return (of_entities(view, events, chosen) if len(events) else events), online

    def _choose(self, there: Mapping[str, set[Entity]]) -> dict[str, list[Entity]]:
        """Return the entities of the sample, of what is in the store and what is in the log."""
        lot = self.sources.lot
        assert lot is not None
        chosen = {}
        for view in self.plan.views.values():
            events = self.sources.readers[view.source_topic].events()
            known: list[Entity] = []
            if len(events):
                known = (
                    events.select(pl.col(key).cast(pl.String) for key in view.entity)
                    .drop_nulls()
                    .unique()
                    .rows()
                )
            chosen[view.name] = lot.chosen(view, [*known, *there[view.name]])
        return chosen

    def _read_store(self, wanted: Mapping[str, Iterable[Entity]]) -> dict[str, OnlineRows]:
        self.progress("reading the online store")
        found = {}
        for view in self.plan.views.values():
            partitions = len(self.sources.readers[view.source_topic].ends)
            rows = read_rows(
                self.store, view, self.plan.project, sorted(wanted[view.name]), partitions, self.pause
            )
            found[view.name] = rows
        return found

    def _compare(
        self, report: Report, online: Mapping[str, OnlineRows], chosen: Mapping[str, list[Entity]] | None
    ) -> None:
        """Compare these rows with their events; what was compared before of the same entities is replaced."""
        for topic in self.sources.readers:
            with report.timed("log"):
                events = self.sources.events(topic)
            reader = self.sources.readers[topic]
            self._judged[topic] = Judged(
                reader.key, reader.records, reader.events(), reader.rejected(), self.common.get(topic, {})
            )
            for view in self.sources.views(topic):
                self.progress(f"comparing {view.name}")
                self.compared[view.name] = self._compare_view(report, view, events, online[view.name], chosen)

    def _compare_view(
        self,
        report: Report,
        view: ViewPlan,
        events: pl.DataFrame,
        online: OnlineRows,
        chosen: Mapping[str, list[Entity]] | None,
    ) -> Compared:
        return compare_view(
            report,
            view,
            events,
            online,
            chosen=None if chosen is None else chosen[view.name],
            common=self.common.get(view.source_topic, {}),
            since_ms=self.sources.readers[view.source_topic].since_ms,
            precision=self.plan.distinct_precision,
            pause=self.pause,
        )

    def _ask_the_log(
        self, report: Report, online: Mapping[str, OnlineRows], chosen: Mapping[str, list[Entity]] | None
    ) -> None:
        """Compare with the topics themselves: of the lake and the store, either may be wrong."""
        self.progress("something differs from the lake's rows: reading the topics themselves")
        lot = self.sources.lot
        self.sources = Sources(self.broker, self.registry, self.plan, self.progress, self.pause, lot)
        with report.timed("log"):
            self.sources.read()
        report.values = 0
        self._compare(report, online, chosen)

    def _look_again(self, report: Report, positions: Positions) -> None:
        """Read what differs once more, as long as anything of it moves."""
        patience = time.monotonic() + self.patience_s
        while True:
            doubtful = {name: sorted(each.doubtful) for name, each in self.compared.items() if each.doubtful}
            if not doubtful:
                return
            self.progress(f"looking again at {sum(map(len, doubtful.values()))} rows")
            self.pause()
            positions.common(
                {}, 0.0, self.pause
            )  # the view has read what Flink sent; the common position stays
            before = {name: self.compared[name] for name in doubtful}
            chosen = {name: doubtful.get(name, []) for name in self.compared}
            online = self._read_store(chosen)
            new = self.sources.read()
            same = not new and all(same_rows(before[name].online, online[name]) for name in doubtful)
            values = report.values
            for name in doubtful:
                view = self.plan.views[name]
                again = self._compare_view(
                    report, view, self.sources.events(view.source_topic), online[name], chosen
                )
                first = before[name]
                report.looked_again += len(first.doubtful - again.doubtful)
                settle(first, again)
            report.values = values
            fewer = sum(len(self.compared[name].doubtful) for name in doubtful) < sum(
                map(len, doubtful.values())
            )
            # What Flink holds back comes within its longest pause; a wrong row that nothing moves stays wrong.
            over = time.monotonic() > patience or not any(map(self._may_come, doubtful))
            if over and (same or not fewer):
                break
            time.sleep(_LOOK_S)
        moving = sum(int(each.check.moving.sum()) for each in self.compared.values() if not each.findings)
        if moving:
            report.notes.append(f"{moving} rows kept moving: their tiles were compared, their features not")

    def _may_come(self, name: str) -> bool:
        """Whether time alone may settle what is doubtful of a view."""
        compared = self.compared[name]
        gathers = self.sources.readers[compared.view.source_topic].key not in compared.view.entity
        moving = len(compared.doubtful) > len({each.entity for each in compared.findings})
        return gathers or moving or any(each.kind in _LACKING for each in compared.findings)

    def _accounts(self, report: Report) -> None:
        for topic, reader in self.sources.readers.items():
            letters, judged = read_letters(self.kafka, topic), self._judged[topic]
            report.add(rejected_findings(self.broker, reader, letters, "flink.", judged.common))
            checks = {view.name: self.compared[view.name].check for view in self.sources.views(topic)}
            report.topics[topic] = source_account(judged, self.sources.views(topic), checks)

    def _lake(self, report: Report, root: Root, sampled: bool) -> None:
        """Every table of the lake, up to its own positions."""
        from streams.verify.lake import verify_table

        kept = default_topics() if self.lake_topics is None else self.lake_topics
        topics = [topic for topic in kept if any(self.broker.ends(topic).values())]
        if sampled:
            topics = random.sample(topics, min(_TABLES, len(topics)))
        for topic in topics:
            self.progress(f"comparing the lake's {topic}")
            reader = self.sources.readers.get(topic)
            check = verify_table(
                root, self.broker, self.registry, topic, reader=reader, sampled=sampled, pause=self.pause
            )
            self.tables[topic] = check
            report.add(check.findings)
            if check.rows or check.records or check.behind:
                counts = {"rows": check.rows, "records": check.records, "fields": check.fields}
                report.lake[topic] = {**counts, "behind": check.behind}

    def _index(self, report: Report, ask: Callable[[str, Any], Any], sampled: bool) -> None:
        """The vectors of the index are those of the embeddings topic."""
        from streams.verify.vectors import verify_vectors

        self.progress("comparing the index")
        check = verify_vectors(ask, self.broker, self.registry, sampled=sampled, pause=self.pause)
        report.add(check.findings)
        report.index = {"entries": check.entries, **{f"{kind}_vectors": n for kind, n in check.vectors.items()}}

    def _hybrid(self, report: Report, source: HybridSource, sampled: bool) -> None:
        """Fused vectors are what their parts give."""
        from streams.verify.hybrid import verify_hybrid

        self.progress("comparing fused vectors with their parts")
        check = verify_hybrid(source, self.broker, self.registry, sampled=sampled, pause=self.pause)
        report.add(check.findings)
        report.notes += check.notes
        report.hybrid = {"products": check.products, "moving": check.moving}

    def _models(self, report: Report, sampled: bool) -> None:
        """Champions, the versions of scores, and insights."""
        from streams.verify.models import verify_models

        self.progress("comparing scores and insights with the models' lifecycle")
        check = verify_models(self.broker, self.registry, sampled=sampled, pause=self.pause)
        report.add(check.findings)
        told = {"decisions": check.decisions, "scores": check.scores, "insights": check.insights}
        report.models = told if any(told.values()) else {}
        if not sampled:
            from streams.verify.leads import verify_leads

            learnt = verify_leads(self.store, self.plan.project, self.broker, self.registry, self.pause)
            report.add(learnt.findings)
            if learnt.lessons:
                report.models["lessons"] = learnt.lessons

    def _graph(self, report: Report, driver: Driver, database: str) -> None:
        """The graph is what its topics say."""
        from streams.verify.graph import verify_graph
        from streams.verify.graph_vectors import verify_graph_vectors

        self.progress("comparing the graph")
        check = verify_graph(driver, database, self.broker, self.registry, self.pause)
        report.add(check.findings)
        report.notes += check.notes
        vectors = verify_graph_vectors(driver, database, self.broker, self.registry, self.pause)
        report.add(vectors.findings)
        for encoder, count in vectors.leftover.items():
            report.notes.append(f"{count:,} vectors of {encoder} were left over by an earlier graph")
        report.graph = {"lines": check.lines, "relations": check.relations, "nodes": check.nodes}
        report.graph["vectors"] = vectors.vectors
