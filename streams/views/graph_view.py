"""The graph view: products, dealers, inventory and orders, folded into a graph in Neo4j.

Data and position are committed in one transaction, so a batch is folded once whatever crashes. That a line
which a producer repeats counts once is the fold's own doing: `streams.graph.fold`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from connectors.neo4j.driver import AWAY
from connectors.registry import RegistryUnavailableError
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.graph.fold import Batch, Line
from streams.graph.store import GraphStore
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["GRAPH_VIEW", "GraphView"]

GRAPH_VIEW = "graph-view"
_PRODUCTS, _DEALERS, _INVENTORY, _ORDERS = "products", "dealers", "inventory", "orders"


class GraphView(View):
    """Folds into `store`, as its only writer.

    Outcomes that are counted: `lines`, `duplicate` (an order line that is there already), `superseded` (older
    than what is there), `tombstone`, `refused` (cannot be read: whoever else reads these topics keeps the dead
    letter, and the lake the bytes).
    """

    name = GRAPH_VIEW
    topics = (_PRODUCTS, _DEALERS, _INVENTORY, _ORDERS)
    retried = (*AWAY, RegistryUnavailableError)

    def __init__(self, store: GraphStore, fetch_schema: Callable[[int], Any]) -> None:
        self._store = store
        self._decoders = {name: Decoder.of_topic(name, fetch_schema) for name in self.topics}
        self._keys = {name: topic(name).key[0] for name in (_PRODUCTS, _DEALERS)}
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Return the position that the graph holds."""
        return self._store.positions()

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold messages and move the position, in one transaction."""
        batch = self._read(messages)
        changes = self._store.commit(
            batch, {(each.topic(), each.partition()): each.offset() + 1 for each in messages}
        )
        for outcome, count in (
            ("lines", len(changes.lines)),
            ("duplicate", changes.duplicates),
            ("superseded", changes.superseded),
            ("tombstone", len(changes.gone_products) + len(changes.gone_dealers)),
        ):
            if count:
                self._meters.count(outcome, count)
        now_ms = time.time() * 1000
        self._meters.freshness([max(now_ms - each.timestamp()[1], 0.0) / 1000 for each in messages])

    def _read(self, messages: Sequence[Any]) -> Batch:
        batch = Batch()
        for message in messages:
            try:
                self._take(batch, message)
            except ContractError:
                self._meters.count("refused")
        return batch

    def _take(self, batch: Batch, message: Any) -> None:
        name, value = message.topic(), message.value()
        if value is None and name not in self._keys:
            return  # on a topic of events there is nothing that it could delete
        record = None if value is None else self._record(name, value)
        if name == _ORDERS:
            assert record is not None
            batch.lines.append(Line(record, message.partition(), message.offset()))
        elif name == _INVENTORY:
            assert record is not None
            batch.levels.append(record)
        else:
            key = (message.key() or b"").decode(errors="replace")
            if not key or (record is not None and record[self._keys[name]] != key):
                raise ContractError(f"{name}: the key is {key!r}, and not the record's own")
            (batch.products if name == _PRODUCTS else batch.dealers).append((key, record))

    def _record(self, name: str, value: bytes) -> dict[str, Any]:
        return valid(name, self._decoders[name].decode(value))
