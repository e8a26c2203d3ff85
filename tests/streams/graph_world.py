"""Events of a small dealer network, and the graph that a plain recount says they make."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from typing import Any

from lake_tables import FakeMessage

from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder

TOPICS = ("products", "dealers", "inventory", "orders")
ENCODE = {name: Encoder(name, number).encode for number, name in enumerate(TOPICS, 1)}
NOON = 1_700_000_000_000


def fetch(number: int) -> Any:
    return topic(TOPICS[number - 1]).schema


def product(identity: str, **more: Any) -> dict[str, Any]:
    return {
        "product_id": identity, "name": f"Thing {identity}", "category": "TOOLS", "subcategory": None,
        "product_type": None, "brand": None, "manufacturer_id": None, "package_size": None, "price": None,
        "deleted": False, "event_time": NOON,
    } | more  # fmt: skip


def dealer(identity: str, **more: Any) -> dict[str, Any]:
    return {"dealer_id": identity, "name": f"Dealer {identity}", "region": None, "event_time": NOON} | more


def level(dealer_id: str, product_id: str, on_hand: int, time: int = NOON) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex, "dealer_id": dealer_id, "product_id": product_id, "on_hand": on_hand,
        "event_time": time,
    }  # fmt: skip


def line(dealer_id: str, order_id: str, product_id: str, event_id: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": event_id, "order_id": order_id, "line": 0, "dealer_id": dealer_id, "customer_id": None,
        "product_id": product_id, "category": "TOOLS", "brand": None, "quantity": 1, "amount": 1.0,
        "discount": 0.0, "currency": "USD", "channel": "store", "event_time": NOON,
    } | more  # fmt: skip


class Network:
    """Makes events of dealers and products of its own, and keeps them by partition as a topic would."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.mark = uuid.uuid4().hex[:8]
        self.dealers = [f"{self.mark}-d{number}" for number in range(4)]
        self.products = [f"{self.mark}-p{number}" for number in range(6)]
        self.log: list[FakeMessage] = []
        self._ends: dict[tuple[str, int], int] = {}

    def add(self, name: str, key: str, record: dict[str, Any] | bytes | None) -> FakeMessage:
        number = sum(key.encode()) % 2
        at = self._ends.get((name, number), 0)
        self._ends[name, number] = at + 1
        data = record if record is None or isinstance(record, bytes) else ENCODE[name](record)
        message = FakeMessage(name, number, at, data, key.encode())
        self.log.append(message)
        return message

    def some(self, count: int) -> None:
        """Add events at random: half are order lines, a fifth of which come again."""
        for _ in range(count):
            pick, kind = self.pick, self.pick.random()
            who, what = pick.choice(self.dealers), pick.choice(self.products)
            time = NOON + pick.randrange(20)
            if kind < 0.5:
                number = pick.randrange(count // 4)
                self.add(
                    "orders",
                    who,
                    line(
                        who, f"o{number % 7}", what, f"e{number}", quantity=pick.randrange(9), event_time=time
                    ),
                )
            elif kind < 0.7:
                self.add("inventory", who, level(who, what, pick.randrange(50), time))
            elif kind < 0.85:
                record = product(
                    what, category=pick.choice("AB"), subcategory=pick.choice([None, "x", "y"]),
                    event_time=time, name=f"n{pick.random()}",
                )  # fmt: skip
                self.add("products", what, pick.choice([record, record, record, None]))
            else:
                record = dealer(who, region=pick.choice([None, "north", "south"]), event_time=time)
                self.add("dealers", who, pick.choice([record, record, record, None]))


def recount(events: Iterable[tuple[str, str, dict[str, Any] | None, int, int]]) -> dict[str, Any]:
    """Return what a graph must hold of (topic, key, record, partition, offset), the log in any order that keeps
    each partition's.
    """
    events = list(events)
    newest: dict[str, dict[str, Any]] = {"products": {}, "dealers": {}}
    levels: dict[tuple[str, str], tuple[int, int]] = {}
    lines: dict[tuple[str, str], tuple[Any, ...]] = {}
    for name, key, record, partition, offset in events:
        if name in newest:
            now = newest[name]
            if record is None:
                now.pop(key, None)
            elif key not in now or record["event_time"] >= now[key]["event_time"]:
                now[key] = record
        elif record is not None and name == "inventory":
            pair = key, record["product_id"]
            if pair not in levels or record["event_time"] >= levels[pair][0]:
                levels[pair] = record["event_time"], record["on_hand"]
        elif record is not None:
            lines.setdefault(
                (key, record["event_id"]),
                (
                    key, record["order_id"], record["product_id"], record["event_id"], record["quantity"],
                    record["event_time"], partition, offset,
                ),
            )  # fmt: skip
    ordered: dict[tuple[str, str], tuple[int, int, int]] = {}
    for who, _, what, _, quantity, time, *_ in lines.values():
        count, total, last = ordered.get((who, what), (0, 0, 0))
        ordered[who, what] = count + 1, total + quantity, max(last, time)
    products, dealers = newest["products"], newest["dealers"]
    return {
        "products": {key: (each["name"], each["event_time"]) for key, each in products.items()},
        "dealers": {key: (each["name"], each["event_time"]) for key, each in dealers.items()},
        "categories": {
            key: " > ".join(filter(None, (each["category"], each["subcategory"])))
            for key, each in products.items()
        },
        "regions": {key: each["region"] for key, each in dealers.items() if each["region"] is not None},
        "stocks": {pair: (on_hand, time) for pair, (time, on_hand) in levels.items()},
        "lines": set(lines.values()),
        "ordered": ordered,
        "orders": {(who, order) for who, order, *_ in lines.values()},
    }  # fmt: skip


def dump(driver: Any, mark: str) -> dict[str, Any]:
    """Return the same of the graph: of dealers and products whose ids begin with `mark`."""

    def rows(text: str) -> list[list[Any]]:
        return [each.values() for each in driver.execute_query(text, mark=mark).records]

    def pairs(text: str) -> dict[Any, Any]:
        found = rows(text)
        made = {(row[0], row[1]): tuple(row[2:]) for row in found}
        assert len(made) == len(found)
        return made

    def one(text: str) -> dict[Any, Any]:
        found = rows(text)
        made = {row[0]: row[1] if len(row) == 2 else tuple(row[1:]) for row in found}
        assert len(made) == len(found)
        return made

    own_d, own_p = "d.dealer_id STARTS WITH $mark", "p.product_id STARTS WITH $mark"
    lines = rows(
        f"MATCH (d:Dealer)-[:PLACED]->(o:Order)-[l:HOLDS]->(p:Product) WHERE {own_d} "
        "RETURN d.dealer_id, o.order_id, p.product_id, l.event_id, l.quantity, l.event_time, "
        "l.partition, l.offset"
    )
    assert len(lines) == len({tuple(row) for row in lines})
    return {
        "products": one(
            f"MATCH (p:Product) WHERE {own_p} AND p.event_time IS NOT NULL "
            "RETURN p.product_id, p.name, p.event_time"
        ),
        "dealers": one(
            f"MATCH (d:Dealer) WHERE {own_d} AND d.event_time IS NOT NULL "
            "RETURN d.dealer_id, d.name, d.event_time"
        ),
        "categories": one(f"MATCH (p:Product)-[:OF]->(c:Category) WHERE {own_p} RETURN p.product_id, c.path"),
        "regions": one(f"MATCH (d:Dealer)-[:IN]->(r:Region) WHERE {own_d} RETURN d.dealer_id, r.name"),
        "stocks": pairs(
            f"MATCH (d:Dealer)-[s:STOCKS]->(p:Product) WHERE {own_d} "
            "RETURN d.dealer_id, p.product_id, s.on_hand, s.event_time"
        ),
        "lines": {tuple(row) for row in lines},
        "ordered": pairs(
            f"MATCH (d:Dealer)-[r:ORDERED]->(p:Product) WHERE {own_d} "
            "RETURN d.dealer_id, p.product_id, r.count, r.quantity, r.last_ms"
        ),
        "orders": {
            tuple(row)
            for row in rows(
                f"MATCH (d:Dealer)-[:PLACED]->(o:Order) WHERE {own_d} RETURN o.dealer_id, o.order_id"
            )
        },
    }


DECODE = {name: Decoder.of_topic(name, fetch).decode for name in TOPICS}


def told(log: Iterable[FakeMessage]) -> list[tuple[Any, ...]]:
    """Return (topic, key, record, partition, offset) of messages, as `recount` takes them."""
    return [
        (
            each.name, each.name_key.decode(), None if each.data is None else DECODE[each.name](each.data),
            each.number, each.at,
        )
        for each in log
    ]  # fmt: skip
