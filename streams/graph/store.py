"""The graph's one writer: what a batch changes and the position behind it, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

from neo4j import Driver, Transaction

from features.writer import StoreReplacedError
from streams.graph import cypher
from streams.graph.fold import Batch, Changes, Known, fold
from streams.views.view import Position

__all__ = ["GraphStore", "position_in"]


class GraphStore:
    """Folds batches into one database through a driver, whose errors pass through.

    Args:
        driver: of the server.
        database: its database.
        name: the view's, under which its position is kept.
    """

    def __init__(self, driver: Driver, database: str, name: str) -> None:
        self._driver, self._database, self._name = driver, database, name
        self._known: Position | None = None

    def positions(self) -> Position:
        """Return the position that the graph holds, and mean this graph; its schema is there afterwards."""
        for statement in cypher.SCHEMA:  # repeated where another process declares the same at this moment
            self._driver.execute_query(statement, database_=self._database)
        with self._driver.session(database=self._database) as session:
            session.run("CALL db.awaitIndexes(300)").consume()
            found = session.run(cypher.WHERE, name=self._name).single()
            self._known = position_in({} if found is None else found["held"])
        return dict(self._known)

    def commit(self, batch: Batch, behind: Mapping[tuple[str, int], int]) -> Changes:
        """Fold `batch` and move the position to `behind`, in one transaction; may be repeated.

        Returns what changed: nothing where the last try was committed, and only its answer lost. Raises
        StoreReplacedError where the graph does not hold the position that this process left there.
        """
        known = self.positions() if self._known is None else self._known
        target = known | dict(behind)
        with (
            self._driver.session(database=self._database) as session,
            session.begin_transaction() as transaction,
        ):
            held = position_in(_one(transaction, cypher.LOCK, name=self._name)["held"])
            if held != known:
                if held == target:
                    self._known = target
                    return Changes()
                raise StoreReplacedError(
                    f"{self._name}: the graph was emptied or replaced, or another process writes it"
                )
            changes = fold(batch, self._read(transaction, batch))
            _write(transaction, changes)
            moved = {f"{topic}:{part}": offset for (topic, part), offset in behind.items()}
            transaction.run(cypher.MOVE, name=self._name, behind=moved)
            transaction.commit()
        self._known = target
        return changes

    def _read(self, transaction: Transaction, batch: Batch) -> Known:
        known = Known()
        if batch.products:
            ids = list(dict.fromkeys(each for each, _ in batch.products))
            known.products = dict(_rows(transaction, cypher.KNOWN_PRODUCTS, ids=ids))
        if batch.dealers:
            ids = list(dict.fromkeys(each for each, _ in batch.dealers))
            known.dealers = dict(_rows(transaction, cypher.KNOWN_DEALERS, ids=ids))
        if batch.levels:
            pairs = dict.fromkeys((each["dealer_id"], each["product_id"]) for each in batch.levels)
            found = _rows(transaction, cypher.KNOWN_LEVELS, pairs=[list(pair) for pair in pairs])
            known.levels = {(dealer, product): time for dealer, product, time in found}
        if batch.lines:
            ids = list(dict.fromkeys(each.record["event_id"] for each in batch.lines))
            known.lines = {(dealer, each) for dealer, each in _rows(transaction, cypher.KNOWN_LINES, ids=ids)}
        return known


def position_in(held: Mapping[str, Any]) -> Position:
    """Return the position that a view's node holds, by its properties."""
    found: Position = {}
    for name, offset in held.items():
        topic, _, partition = name.rpartition(":")
        if topic:
            found[topic, int(partition)] = offset
    return found


def _write(transaction: Transaction, changes: Changes) -> None:
    for statement, name, values in (
        (cypher.PUT_PRODUCTS, "rows", changes.products),
        (cypher.PUT_DEALERS, "rows", changes.dealers),
        (cypher.TOUCH_PRODUCTS, "ids", changes.named_products),
        (cypher.TOUCH_DEALERS, "ids", changes.named_dealers),
        (cypher.PUT_LEVELS, "rows", changes.levels),
        (cypher.TOUCH_ORDERS, "rows", changes.orders),
        (cypher.ADD_LINES, "rows", changes.lines),
        (cypher.ADD_ORDERED, "rows", changes.ordered),
        # Last: what a tombstone leaves alone may be what this batch has just named.
        (cypher.SWEEP_PRODUCTS, "ids", changes.gone_products),
        (cypher.SWEEP_DEALERS, "ids", changes.gone_dealers),
    ):
        if values:
            transaction.run(statement, {name: values}).consume()


def _one(transaction: Transaction, statement: LiteralString, **parameters: Any) -> Any:
    return transaction.run(statement, parameters).single(strict=True)


def _rows(transaction: Transaction, statement: LiteralString, **parameters: Any) -> list[Any]:
    return [tuple(each.values()) for each in transaction.run(statement, parameters)]
