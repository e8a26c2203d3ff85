"""The graph against its topics: lines, sums, products, dealers and stock, recounted from the log.

Every order line of the graph says which record it is of, so lines can be compared while the graph moves:
those before the position that it held when it was asked. What has no place of its own (sums, names, stock)
is compared where the position stood still while it was read; otherwise a note says that it was not. The
recount is a plain one, and shares no code with the view.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

from neo4j import Driver

from connectors.registry import Registry
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import problems
from streams.verify.broker import Broker, Ends
from streams.verify.findings import Finding
from streams.verify.messages import messages

__all__ = ["GraphCheck", "verify_graph"]

TOPICS = ("orders", "products", "dealers", "inventory")
_VIEW = "graph-view"
_TRIES, _LOOK_S = 3, 1.0
_PRODUCT = (
    "name", "category", "subcategory", "product_type", "brand", "manufacturer_id", "package_size", "price",
    "deleted", "event_time",
)  # fmt: skip
_DEALER = ("name", "region", "event_time")

_POSITION = "MATCH (v:View {name: $name}) RETURN properties(v) AS held"
_LINES = """
MATCH (o:Order)-[l:HOLDS]->(p:Product)
RETURN o.dealer_id, o.order_id, p.product_id, l.event_id, l.quantity, l.event_time, l.partition, l.offset"""
_ORDERED = """
MATCH (d:Dealer)-[r:ORDERED]->(p:Product)
RETURN d.dealer_id, p.product_id, r.count, r.quantity, r.last_ms"""
_STOCKS = """
MATCH (d:Dealer)-[s:STOCKS]->(p:Product) RETURN d.dealer_id, p.product_id, s.on_hand, s.event_time"""
_PRODUCTS = """
MATCH (p:Product) WHERE p.event_time IS NOT NULL OR EXISTS { (p)-[:OF]->() }
RETURN p.product_id, properties(p), [(p)-[:OF]->(c) | c.path]"""
_DEALERS = """
MATCH (d:Dealer) WHERE d.event_time IS NOT NULL OR EXISTS { (d)-[:IN]->() }
RETURN d.dealer_id, properties(d), [(d)-[:IN]->(r) | r.name]"""

Pair = tuple[str, str]
Lines = dict[tuple[str, str], tuple[Any, ...]]


@dataclass
class GraphCheck:
    """What was compared, and what was found; `notes` say what could not be."""

    lines: int = 0
    relations: int = 0
    nodes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Read:
    """The graph as it was read, and the position that it held before."""

    position: dict[str, Ends]
    lines: dict[tuple[int, int], tuple[Any, ...]]
    twice: list[tuple[Any, ...]]
    still: bool
    ordered: dict[Pair, tuple[Any, ...]]
    stocks: dict[Pair, tuple[Any, ...]]
    products: dict[str, tuple[Any, ...]]
    dealers: dict[str, tuple[Any, ...]]


@dataclass
class _Recount:
    """What the log says up to the position; `compacted` topics have let records go."""

    lines: Lines = field(default_factory=dict)
    stocks: dict[Pair, tuple[Any, ...]] = field(default_factory=dict)
    products: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    dealers: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    firsts: dict[str, Ends] = field(default_factory=dict)
    compacted: set[str] = field(default_factory=set)


def verify_graph(
    driver: Driver, database: str, broker: Broker, registry: Registry, pause: Callable[[], None]
) -> GraphCheck:
    """Compare the whole graph. Errors of Neo4j's driver pass through; raises KafkaUnavailableError."""
    check = GraphCheck()
    read = _graph(driver, database)
    ends = {topic: broker.ends(topic) for topic in TOPICS}
    check.findings += _impossible(read.position, ends)
    log = _log(broker, registry, read.position, ends, pause)
    check.lines = len(read.lines)
    check.findings += _lines(read, log)
    if not read.still:
        check.notes.append("the graph kept moving: its lines were compared, its sums and nodes not")
        return check
    check.relations, check.nodes = len(read.ordered) + len(read.stocks), len(read.products) + len(read.dealers)
    check.findings += _pairs("ORDERED", read.ordered, _sums(read))
    check.findings += _pairs("STOCKS", read.stocks, log.stocks, lax=any(log.firsts["inventory"].values()))
    check.findings += _nodes("Product", read.products, log.products, "products" in log.compacted)
    check.findings += _nodes("Dealer", read.dealers, log.dealers, "dealers" in log.compacted)
    return check


def _graph(driver: Driver, database: str) -> _Read:
    """Read the graph; again, a few times, until its position stood still meanwhile."""

    def rows(statement: LiteralString) -> list[tuple[Any, ...]]:
        found = driver.execute_query(statement, database_=database, routing_="r")
        return [tuple(each.values()) for each in found.records]

    def position() -> dict[str, Ends]:
        found = driver.execute_query(_POSITION, name=_VIEW, database_=database, routing_="r").records
        held: dict[str, Ends] = {topic: {} for topic in TOPICS}
        for name, offset in (found[0]["held"] if found else {}).items():
            topic, _, partition = name.rpartition(":")
            if topic in held:
                held[topic][int(partition)] = offset
        return held

    for left in reversed(range(_TRIES)):
        before = position()
        lines: dict[tuple[int, int], tuple[Any, ...]] = {}
        twice = []
        for row in rows(_LINES):
            if row[6:] in lines:
                twice.append(row)
            lines[row[6], row[7]] = row
        ordered = {(row[0], row[1]): row[2:] for row in rows(_ORDERED)}
        stocks = {(row[0], row[1]): row[2:] for row in rows(_STOCKS)}
        products = {each: _node(_PRODUCT, held, to) for each, held, to in rows(_PRODUCTS)}
        dealers = {each: _node(_DEALER, held, to) for each, held, to in rows(_DEALERS)}
        still = position() == before
        if still or not left:
            break
        time.sleep(_LOOK_S)
    return _Read(before, lines, twice, still, ordered, stocks, products, dealers)


def _node(names: tuple[str, ...], held: Mapping[str, Any], to: list[str]) -> tuple[Any, ...]:
    return (*(held.get(name) for name in names), sorted(to))


def _log(
    broker: Broker,
    registry: Registry,
    position: Mapping[str, Ends],
    ends: Mapping[str, Ends],
    pause: Callable[[], None],
) -> _Recount:
    found = _Recount()
    for topic in TOPICS:
        upto = {part: min(at, ends[topic].get(part, 0)) for part, at in position[topic].items()}
        firsts = found.firsts[topic] = broker.firsts(topic)
        decoder = Decoder.of_topic(topic, registry.schema)
        count = 0
        for partition, key, offset, value in messages(broker, topic, upto, pause):
            if offset >= upto.get(partition, 0):
                continue
            count += 1
            try:
                record = None if value is None else decoder.decode(value)
            except ContractError:
                continue
            if record is None or not problems(topic, record):
                _recount(found, topic, key, record, (partition, offset))
        if count < sum(max(at - firsts.get(part, 0), 0) for part, at in upto.items()):
            found.compacted.add(topic)
    return found


def _recount(
    found: _Recount, topic: str, key: str, record: dict[str, Any] | None, place: tuple[int, int]
) -> None:
    if topic == "products" or topic == "dealers":
        newest = found.products if topic == "products" else found.dealers
        names, time_at = (_PRODUCT, 9) if topic == "products" else (_DEALER, 2)
        if record is None:
            newest.pop(key, None)
        elif record["product_id" if topic == "products" else "dealer_id"] == key and (
            key not in newest or record["event_time"] >= newest[key][time_at]
        ):
            newest[key] = (*(record[name] for name in names), _to(topic, record))
    elif record is not None and topic == "inventory":
        pair = record["dealer_id"], record["product_id"]
        if pair not in found.stocks or record["event_time"] >= found.stocks[pair][1]:
            found.stocks[pair] = record["on_hand"], record["event_time"]
    elif record is not None:
        identity = record["dealer_id"], record["event_id"]
        if identity not in found.lines:
            found.lines[identity] = (
                record["dealer_id"], record["order_id"], record["product_id"], record["event_id"],
                record["quantity"], record["event_time"], *place,
            )  # fmt: skip


def _to(topic: str, record: Mapping[str, Any]) -> list[str]:
    if topic == "dealers":
        return [] if record["region"] is None else [record["region"]]
    classes = [each for each in (record["category"], record["subcategory"]) if each is not None]
    return [" > ".join(classes)]


def _impossible(position: Mapping[str, Ends], ends: Mapping[str, Ends]) -> Iterator[Finding]:
    for topic, held in position.items():
        for partition, offset in held.items():
            most = ends[topic].get(partition, 0)
            if offset > most:
                what = f"partition {partition}"
                yield Finding("position", "graph", topic, (), what, "", f"{most} or less", offset)


def _lines(read: _Read, log: _Recount) -> Iterator[Finding]:
    firsts, position = log.firsts["orders"], read.position["orders"]
    wanted = {line[6:]: line for line in log.lines.values()}
    by_id = {(row[0], row[3]): row for row in read.lines.values()}
    for row in read.twice:
        yield _finding("extra-relation", "HOLDS", (row[0], row[3]), "one relation", "another", _at(row))
    for place, line in wanted.items():
        held = read.lines.get((place[0], place[1]))
        if held == line:
            continue
        if held is None:
            first = by_id.get((line[0], line[3]))
            if first is None or first[7] >= firsts.get(first[6], 0):  # else: the log has let the first one go
                yield _finding("missing-relation", "HOLDS", (line[0], line[3]), line[1:6], None, _at(line))
        else:
            yield _finding("relation", "HOLDS", (line[0], line[3]), line[:6], held[:6], _at(line))
    for place, row in read.lines.items():
        partition, offset = place
        known = firsts.get(partition, 0) <= offset < position.get(partition, 0)
        if place not in wanted and known:
            yield _finding("extra-relation", "HOLDS", (row[0], row[3]), None, row[1:6], _at(row))


def _sums(read: _Read) -> dict[Pair, tuple[int, int, int]]:
    found: dict[Pair, tuple[int, int, int]] = {}
    for dealer, _, product, _, quantity, at, *_ in read.lines.values():
        count, total, last = found.get((dealer, product), (0, 0, at))
        found[dealer, product] = count + 1, total + quantity, max(last, at)
    return found


def _pairs(
    kind: str,
    held: Mapping[Pair, tuple[Any, ...]],
    wanted: Mapping[Pair, tuple[Any, ...]],
    *,
    lax: bool = False,
) -> Iterator[Finding]:
    """Compare relations; `lax` lets those be of which the log has nothing any more."""
    for pair, values in wanted.items():
        if pair not in held:
            yield _finding("missing-relation", kind, pair, values, None)
        elif held[pair] != values:
            yield _finding("relation", kind, pair, values, held[pair])
    for pair in () if lax else held.keys() - wanted.keys():
        yield _finding("extra-relation", kind, pair, None, held[pair])


def _nodes(
    label: str,
    held: Mapping[str, tuple[Any, ...]],
    wanted: Mapping[str, tuple[Any, ...]],
    compacted: bool,
) -> Iterator[Finding]:
    """Compare nodes. Compaction keeps the last record, and may let go one with a newer time."""
    for each, values in wanted.items():
        if each not in held:
            yield _finding("missing-node", label, (each,), values, None)
        elif held[each] != values and not (compacted and (held[each][-2] or 0) > values[-2]):
            yield _finding("node", label, (each,), values, held[each])
    for each in held.keys() - wanted.keys():
        yield _finding("extra-node", label, (each,), None, held[each])


def _at(line: tuple[Any, ...]) -> str:
    return f"orders[{line[6]}]@{line[7]}"


def _finding(
    kind: Any, view: str, entity: tuple[str, ...], expected: Any, found: Any, position: str = ""
) -> Finding:
    return Finding(kind, "graph", view, entity, "", "", expected, found, position)
