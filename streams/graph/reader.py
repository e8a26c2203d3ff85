"""What the graph is asked: products bought together, products that can stand in for one, dealers alike.

Every question starts from one node and reads a bounded part of the graph around it, so that its time does not
grow with the network. Ties are broken by id: the same graph gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from neo4j import AsyncDriver, Query

from schemas.errors import DealerIQError

__all__ = ["MOST_LINES", "MOST_PRODUCTS", "GraphReader", "NotInGraphError", "log_likelihood"]

MOST_LINES = 5_000
"""Lines of a product that are read for what it was bought together with: its newest."""
MOST_PRODUCTS = 500
"""Products of a dealer that others are compared by: those it ordered most."""
_CANDIDATES = 200

_BOUGHT_TOGETHER = """
MATCH (p:Product {product_id: $id})
CALL (p) {
  MATCH (p)<-[l:HOLDS]-(o:Order)
  WITH o, l ORDER BY l.event_time DESC LIMIT $most
  RETURN collect(DISTINCT o) AS own
}
CALL (p, own) {
  UNWIND own AS o
  MATCH (o)-[:HOLDS]->(q:Product)
  WHERE q <> p AND coalesce(q.deleted, false) = false
  WITH q, count(DISTINCT o) AS together ORDER BY together DESC, q.product_id LIMIT $candidates
  RETURN collect({
    product_id: q.product_id, name: q.name, category: q.category, together: together,
    lines: COUNT { (q)<-[:HOLDS]-() }
  }) AS others
}
CALL () { MATCH (o:Order) RETURN count(o) AS total }
RETURN p.name AS name, size(own) AS orders, COUNT { (p)<-[:HOLDS]-() } AS lines, total, others"""

_COMPATIBLE = """
MATCH (p:Product {product_id: $id})
OPTIONAL MATCH (p)-[:OF]->(c:Category)
CALL (p, c) {
  MATCH (p)<-[:ORDERED]-(d:Dealer)
  WITH p, c, collect(d) AS own
  MATCH (c)<-[:OF]-(q:Product)
  WHERE q <> p AND q.deleted = false
  MATCH (q)<-[r:ORDERED]-(d:Dealer) WHERE d IN own
  WITH q, count(d) AS dealers, max(r.last_ms) AS last_ms ORDER BY dealers DESC, q.product_id LIMIT $limit
  RETURN collect({
    product_id: q.product_id, name: q.name, category: q.category, package_size: q.package_size, price: q.price,
    dealers: dealers, last_ms: last_ms
  }) AS others
}
RETURN p.name AS name, c.path AS class, COUNT { (p)<-[:ORDERED]-() } AS dealers, others"""

_SIMILAR_DEALERS = """
MATCH (d:Dealer {dealer_id: $id})
CALL (d) {
  MATCH (d)-[r:ORDERED]->(p:Product)
  WITH p, r ORDER BY r.count DESC, p.product_id LIMIT $most
  RETURN collect(p) AS own
}
CALL (d, own) {
  UNWIND own AS p
  MATCH (p)<-[:ORDERED]-(e:Dealer) WHERE e <> d
  WITH e, count(p) AS shared, size(own) AS mine
  WITH e, shared, shared / sqrt(toFloat(mine) * COUNT { (e)-[:ORDERED]->() }) AS score
  ORDER BY score DESC, e.dealer_id LIMIT $limit
  OPTIONAL MATCH (e)-[:IN]->(r:Region)
  RETURN collect({
    dealer_id: e.dealer_id, name: e.name, region: r.name, shared: shared, score: score,
    products: COUNT { (e)-[:ORDERED]->() }
  }) AS others
}
RETURN d.name AS name, size(own) AS products, others"""


class NotInGraphError(DealerIQError):
    """The graph holds no product or dealer of that id."""

    remedy = "Look at the id: a product or dealer is in the graph as soon as its record or an order is folded."
    exit_code = 6


@dataclass(frozen=True)
class GraphReader:
    """Asks one database; the driver's errors pass through. `timeout_s` is the longest run of a question."""

    driver: AsyncDriver
    database: str
    timeout_s: float

    async def bought_together(self, product_id: str, limit: int) -> dict[str, Any]:
        """Return the products that one's orders hold more often than chance says, the surest first.

        `together` counts orders that hold both, `lift` is how many times more often that is than if the two
        were independent, `score` Dunning's log-likelihood ratio (Computational Linguistics 19(1), 1993), which
        a rare pair does not win by luck. `orders` are those read: the newest, of a product with more than
        MOST_LINES. Raises NotInGraphError.
        """
        found = await self._one(
            _BOUGHT_TOGETHER, "product", product_id, most=MOST_LINES, candidates=_CANDIDATES
        )
        others = []
        for each in found["others"]:
            lift = each["together"] * found["total"] / (found["orders"] * each["lines"])
            score = log_likelihood(each["together"], found["orders"], each["lines"], found["total"])
            if lift > 1:
                others.append({**each, "lift": round(lift, 4), "score": round(score, 4)})
        others.sort(key=lambda each: (-each["score"], each["product_id"]))
        return {
            "product_id": product_id, "name": found["name"], "orders": found["orders"],
            "all_orders": found["total"], "products": others[:limit],
        }  # fmt: skip

    async def compatible(self, product_id: str, limit: int) -> dict[str, Any]:
        """Return products of the same class, those first that most of its own dealers order, too.

        No topic says what fits what, so the network's own choices do. Raises NotInGraphError.
        """
        found = await self._one(_COMPATIBLE, "product", product_id, limit=limit)
        return {
            "product_id": product_id, "name": found["name"], "class": found["class"],
            "dealers": found["dealers"], "products": found["others"],
        }  # fmt: skip

    async def similar_dealers(self, dealer_id: str, limit: int) -> dict[str, Any]:
        """Return the dealers that order the same products: by the cosine of the two sets of products (Ochiai).

        A dealer's own set is cut to the MOST_PRODUCTS that it ordered most. Raises NotInGraphError.
        """
        found = await self._one(_SIMILAR_DEALERS, "dealer", dealer_id, most=MOST_PRODUCTS, limit=limit)
        others = [{**each, "score": round(each["score"], 6)} for each in found["others"]]
        return {
            "dealer_id": dealer_id, "name": found["name"], "products": found["products"], "dealers": others,
        }  # fmt: skip

    async def _one(
        self, statement: LiteralString, kind: str, identity: str, **parameters: Any
    ) -> Mapping[str, Any]:
        async with self.driver.session(database=self.database, default_access_mode="READ") as session:
            result = await session.run(Query(statement, timeout=self.timeout_s), id=identity, **parameters)
            record = await result.single()
        if record is None:
            raise NotInGraphError(f"no {kind} {identity!r} is in the graph")
        return record.data()


def log_likelihood(together: int, first: int, second: int, total: int) -> float:
    """Return twice the log-likelihood ratio of two things found `together` among `total`, and each alone.

    >>> round(log_likelihood(10, 20, 30, 1000), 3)
    46.497
    """
    second, total = max(second, together), max(total, first + second - together)
    cells = (together, first - together, second - together, total - first - second + together)
    rows = cells[0] + cells[1], cells[2] + cells[3]
    columns = cells[0] + cells[2], cells[1] + cells[3]
    found = _sum(cells) - _sum(rows) - _sum(columns) + _term(total)
    return max(0.0, 2 * found)


def _sum(counts: tuple[int, ...]) -> float:
    return math.fsum(_term(each) for each in counts)


def _term(count: int) -> float:
    return count * math.log(count) if count > 0 else 0.0
