"""The source topics of every feature view, as a verifier reads them: in bulk, and on from where it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from connectors.lake import Root
from connectors.registry import Registry
from features.plan import Plan, ViewPlan
from streams.verify.broker import Broker, Ends
from streams.verify.log import TopicReader
from streams.verify.lot import Lot, lot_column
from streams.verify.tiles import with_coupons

__all__ = ["Sources"]


@dataclass
class Sources:
    """A reader of each source topic; `progress` and `pause` are the verifier's.

    `lot` limits what is kept to the entities of a sample, and `lake` is where the events of a sample are taken
    from; set them before the first `read`.
    """

    broker: Broker
    registry: Registry
    plan: Plan
    progress: Callable[[str], None]
    pause: Callable[[], None]
    lot: Lot | None = None
    lake: Root | None = None
    readers: dict[str, TopicReader] = field(default_factory=dict)

    def views(self, topic: str) -> list[ViewPlan]:
        """Return the views over a topic."""
        return [view for view in self.plan.views.values() if view.source_topic == topic]

    def read(self) -> int:
        """Read the topics on to their present ends; return how many records were new."""
        new = 0
        for topic in dict.fromkeys(view.source_topic for view in self.plan.views.values()):
            if topic not in self.readers:
                views = self.views(topic)
                columns = [*(e for v in views for e in v.entity), *(c.column for v in views for c in v.columns)]
                columns += [feature.column for view in views for feature in view.features]
                self.progress(f"reading {topic}")
                reader = TopicReader(self.broker, self.registry, topic, columns, self.pause, self._keep(topic))
                if self.lake is not None:
                    reader.begin_with(self.lake)
                self.readers[topic] = reader
            new += self.readers[topic].read(self.broker.ends(topic))
        return new

    def last(self) -> dict[str, Ends]:
        """Return the next offset behind the last record that was read, by topic and partition."""
        return {topic: reader.last() for topic, reader in self.readers.items()}

    def events(self, topic: str) -> pl.DataFrame:
        """Return the events of a topic that count, numbered, with coupons where distinct values are counted."""
        events = self.readers[topic].events()
        if not len(events):
            return events
        distinct = {c.column for view in self.views(topic) for c in view.columns if "distinct" in c.partials}
        events = events.filter(pl.col("_first"))
        return with_coupons(events, distinct, self.plan.distinct_precision)

    def _keep(self, topic: str) -> Callable[[Any], Any] | None:
        lot = self.lot
        if lot is None:
            return None
        columns = sorted({lot_column(view) for view in self.views(topic)})
        return lambda table: lot.rows(table, columns)
