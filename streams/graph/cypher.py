"""The graph's statements, all of them with parameters: no text of an event ever becomes Cypher.

    (:Dealer {dealer_id, name, region, event_time})-[:IN]->(:Region {name})
    (:Product {product_id, name, category, …, deleted, event_time})-[:OF]->(:Category {path, name})
    (:Category)-[:UNDER]->(:Category)
    (:Dealer)-[:STOCKS {on_hand, event_time}]->(:Product)
    (:Dealer)-[:PLACED]->(:Order {dealer_id, order_id, last_ms})
    (:Order)-[:HOLDS {event_id, quantity, event_time, partition, offset}]->(:Product)     one an order line
    (:Dealer)-[:ORDERED {count, quantity, last_ms}]->(:Product)                           the sum of those
    (:View {name, `topic:partition`: next offset, …})

A dealer or product that only an order or a level named has no `event_time`. Times are ms since the epoch.
"""

from __future__ import annotations

__all__ = [
    "ADD_LINES",
    "ADD_ORDERED",
    "KNOWN_DEALERS",
    "KNOWN_LEVELS",
    "KNOWN_LINES",
    "KNOWN_PRODUCTS",
    "LOCK",
    "MOVE",
    "PUT_DEALERS",
    "PUT_LEVELS",
    "PUT_PRODUCTS",
    "SCHEMA",
    "SWEEP_DEALERS",
    "SWEEP_PRODUCTS",
    "TOUCH_DEALERS",
    "TOUCH_ORDERS",
    "TOUCH_PRODUCTS",
    "WHERE",
]

SCHEMA = (
    "CREATE CONSTRAINT dealer_id IF NOT EXISTS FOR (d:Dealer) REQUIRE d.dealer_id IS UNIQUE",
    "CREATE CONSTRAINT product_id IF NOT EXISTS FOR (p:Product) REQUIRE p.product_id IS UNIQUE",
    "CREATE CONSTRAINT order_id IF NOT EXISTS FOR (o:Order) REQUIRE (o.dealer_id, o.order_id) IS UNIQUE",
    "CREATE CONSTRAINT region_name IF NOT EXISTS FOR (r:Region) REQUIRE r.name IS UNIQUE",
    "CREATE CONSTRAINT category_path IF NOT EXISTS FOR (c:Category) REQUIRE c.path IS UNIQUE",
    "CREATE CONSTRAINT view_name IF NOT EXISTS FOR (v:View) REQUIRE v.name IS UNIQUE",
    "CREATE INDEX line_event_id IF NOT EXISTS FOR ()-[l:HOLDS]-() ON (l.event_id)",
)
"""Constraints and indexes; declared again, they change nothing."""

WHERE = "MATCH (v:View {name: $name}) RETURN properties(v) AS held"
# The write takes the node's lock, so that a second writer waits here and then finds another position.
LOCK = "MERGE (v:View {name: $name}) SET v.name = $name RETURN properties(v) AS held"
MOVE = "MATCH (v:View {name: $name}) SET v += $behind"

KNOWN_PRODUCTS = """
UNWIND $ids AS id MATCH (p:Product {product_id: id}) WHERE p.event_time IS NOT NULL
RETURN id, p.event_time AS time"""
KNOWN_DEALERS = """
UNWIND $ids AS id MATCH (d:Dealer {dealer_id: id}) WHERE d.event_time IS NOT NULL
RETURN id, d.event_time AS time"""
KNOWN_LEVELS = """
UNWIND $pairs AS pair
MATCH (d:Dealer {dealer_id: pair[0]})-[s:STOCKS]->(p:Product {product_id: pair[1]})
RETURN pair[0] AS dealer, pair[1] AS product, s.event_time AS time"""
KNOWN_LINES = """
UNWIND $ids AS id MATCH (o:Order)-[l:HOLDS]->() USING INDEX l:HOLDS(event_id) WHERE l.event_id = id
RETURN o.dealer_id AS dealer, id"""

PUT_PRODUCTS = """
UNWIND $rows AS row
MERGE (p:Product {product_id: row.id}) SET p += row.fields
WITH p, row
OPTIONAL MATCH (p)-[old:OF]->(c:Category) WHERE row.path IS NULL OR c.path <> row.path
DELETE old
WITH p, row WHERE row.path IS NOT NULL
MERGE (c:Category {path: row.path}) ON CREATE SET c.name = row.leaf
MERGE (p)-[:OF]->(c)
FOREACH (above IN row.above |
  MERGE (u:Category {path: above}) ON CREATE SET u.name = above
  MERGE (c)-[:UNDER]->(u))"""
PUT_DEALERS = """
UNWIND $rows AS row
MERGE (d:Dealer {dealer_id: row.id}) SET d += row.fields
WITH d, row
OPTIONAL MATCH (d)-[old:IN]->(r:Region) WHERE row.region IS NULL OR r.name <> row.region
DELETE old
WITH d, row WHERE row.region IS NOT NULL
MERGE (r:Region {name: row.region})
MERGE (d)-[:IN]->(r)"""

# A tombstone leaves what others still point at, and what an embedding run has yet to take back.
SWEEP_PRODUCTS = """
UNWIND $ids AS id MATCH (p:Product {product_id: id})
WHERE p.event_time IS NULL AND p.published IS NULL AND NOT EXISTS { (p)--() }
DELETE p"""
SWEEP_DEALERS = """
UNWIND $ids AS id MATCH (d:Dealer {dealer_id: id})
WHERE d.event_time IS NULL AND d.published IS NULL AND NOT EXISTS { (d)--() }
DELETE d"""

TOUCH_PRODUCTS = "UNWIND $ids AS id MERGE (:Product {product_id: id})"
TOUCH_DEALERS = "UNWIND $ids AS id MERGE (:Dealer {dealer_id: id})"
TOUCH_ORDERS = """
UNWIND $rows AS row
MERGE (o:Order {dealer_id: row[0], order_id: row[1]})
ON CREATE SET o.last_ms = row[2]
ON MATCH SET o.last_ms = CASE WHEN o.last_ms < row[2] THEN row[2] ELSE o.last_ms END
WITH o, row MATCH (d:Dealer {dealer_id: row[0]})
MERGE (d)-[:PLACED]->(o)"""
ADD_LINES = """
UNWIND $rows AS row
MATCH (o:Order {dealer_id: row[0], order_id: row[1]})
MATCH (p:Product {product_id: row[2]})
CREATE (o)-[l:HOLDS]->(p)
SET l.event_id = row[3], l.quantity = row[4], l.event_time = row[5], l.partition = row[6], l.offset = row[7]"""
ADD_ORDERED = """
UNWIND $rows AS row
MATCH (d:Dealer {dealer_id: row[0]})
MATCH (p:Product {product_id: row[1]})
MERGE (d)-[r:ORDERED]->(p)
ON CREATE SET r.count = row[2], r.quantity = row[3], r.last_ms = row[4]
ON MATCH SET r.count = r.count + row[2], r.quantity = r.quantity + row[3],
  r.last_ms = CASE WHEN r.last_ms < row[4] THEN row[4] ELSE r.last_ms END"""
PUT_LEVELS = """
UNWIND $rows AS row
MATCH (d:Dealer {dealer_id: row[0]})
MATCH (p:Product {product_id: row[1]})
MERGE (d)-[s:STOCKS]->(p) SET s.on_hand = row[2], s.event_time = row[3]"""
