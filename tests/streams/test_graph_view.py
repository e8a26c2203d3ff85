"""The graph view: any batching, repeat and crash ends as a plain recount of what the topics hold."""

import os
import signal
import threading
import time
import uuid

import pytest
from graph_world import TOPICS, Network, dealer, dump, fetch, level, line, product, recount, told

from connectors.kafka import ensure_topics, producer
from connectors.neo4j.driver import connect
from connectors.registry import Registry
from features.writer import StoreReplacedError
from schemas.codec import Encoder
from schemas.envelope import headers
from streams.graph import store as store_module
from streams.graph.store import GraphStore
from streams.views.graph_view import GraphView
from streams.views.runner import ViewRunner

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


@pytest.fixture
def driver(graph):
    with connect(graph.graph) as found:
        yield found


@pytest.fixture
def name():
    return f"view-{uuid.uuid4().hex[:8]}"


def view_of(driver, name):
    view = GraphView(GraphStore(driver, "neo4j", name), fetch)
    view.positions()
    return view


class CrashError(Exception):
    pass


@pytest.mark.parametrize("seed", [1, 2])
def test_batches_repeats_and_crashes_end_as_a_recount(driver, name, seed, monkeypatch):
    network = Network(seed)
    network.some(300)
    view, at = view_of(driver, name), 0
    write = store_module._write

    def half(transaction, changes):
        write(transaction, changes)
        raise CrashError

    while at < len(network.log):
        batch = network.log[at : at + network.pick.randrange(1, 60)]
        what = network.pick.random()
        if what < 0.3:  # everything is written, and the process dies before the commit
            monkeypatch.setattr(store_module, "_write", half)
            with pytest.raises(CrashError):
                view.apply(batch)
            monkeypatch.setattr(store_module, "_write", write)
        elif what < 0.6:  # it is committed, and the answer is lost
            before = dict(view._store._known)
            view.apply(batch)
            view._store._known = before
        view.apply(batch)
        at += len(batch)
        if what > 0.8:
            view = view_of(driver, name)  # another process goes on
    assert dump(driver, network.mark) == recount(told(network.log))
    ends = {(each.name, each.number): each.at + 1 for each in network.log}
    assert view_of(driver, name).positions() == ends


def test_a_line_that_comes_again_weeks_later_counts_once_and_only_under_its_own_dealer(driver, name):
    network = Network(3)
    one, two = network.dealers[:2]
    view = view_of(driver, name)
    view.apply([network.add("orders", one, line(one, "o", network.products[0], "e", quantity=5))])
    view.apply([network.add("orders", one, line(one, "p", network.products[0], "f", quantity=2))])
    view.apply(
        [
            network.add("orders", one, line(one, "o", network.products[0], "e", quantity=5)),
            network.add("orders", two, line(two, "o", network.products[0], "e", quantity=7)),
        ]
    )
    assert {pair[0]: sums[:2] for pair, sums in dump(driver, network.mark)["ordered"].items()} == {
        one: (2, 7),
        two: (1, 7),
    }


def test_a_tombstone_leaves_what_orders_name_and_nothing_else(driver, name):
    network = Network(4)
    sold, unsold, who = *network.products[:2], network.dealers[0]
    view = view_of(driver, name)
    view.apply(
        [
            *(
                network.add("products", each, product(each, category="A", subcategory="x"))
                for each in (sold, unsold)
            ),
            network.add("dealers", who, dealer(who, region="north")),
            network.add("orders", who, line(who, "o", sold, "e")),
        ]
    )
    view.apply([network.add("products", each, None) for each in (sold, unsold)])
    view.apply([network.add("dealers", who, None)])
    left = driver.execute_query(
        "MATCH (n) WHERE n.product_id STARTS WITH $mark OR n.dealer_id STARTS WITH $mark "
        "RETURN labels(n)[0] AS label, properties(n) AS held",
        mark=network.mark,
    ).records
    held = {each["label"]: each["held"] for each in left}
    assert len(left) == 3
    assert held["Product"] == {"product_id": sold}
    assert held["Dealer"] == {"dealer_id": who}
    view.apply(
        [network.add("products", sold, product(sold, event_time=1_699_000_000_000))]
    )  # older than what was deleted
    assert dump(driver, network.mark) == recount(told(network.log))


def test_text_is_never_read_as_cypher(driver, name):
    network = Network(5)
    evil = network.mark + "'}) DETACH DELETE n //`\" $ids \\u0027 {{}}\n"
    view = view_of(driver, name)
    view.apply(
        [
            network.add("products", evil, product(evil, name=evil, category=evil, subcategory=evil)),
            network.add("dealers", evil, dealer(evil, name=evil, region=evil)),
            network.add("inventory", evil, level(evil, evil, 3)),
            network.add("orders", evil, line(evil, evil, evil, evil)),
        ]
    )
    assert dump(driver, network.mark) == recount(told(network.log))


def test_what_cannot_be_read_changes_nothing_and_the_rest_goes_on(driver, name):
    network = Network(6)
    who, what = network.dealers[0], network.products[0]
    good = line(who, "o", what, "e")
    batch = [
        network.add("orders", who, b"poison"),
        network.add("orders", who, None),
        network.add("orders", who, good | {"quantity": -1}),
        network.add("orders", who, good),
        network.add("products", network.products[1], product(what)),
    ]
    view_of(driver, name).apply(batch)
    assert dump(driver, network.mark)["ordered"] == {(who, what): (1, 1, good["event_time"])}
    assert dump(driver, network.mark)["products"] == {}


def test_a_second_writer_and_an_emptied_graph_are_refused(driver, name):
    network = Network(7)
    who, what = network.dealers[0], network.products[0]
    first, second = view_of(driver, name), view_of(driver, name)
    first.apply([network.add("orders", who, line(who, "o", what, "e"))])
    with pytest.raises(StoreReplacedError, match="another process writes it"):
        second.apply([network.add("orders", who, line(who, "o", what, "f"))])
    driver.execute_query("MATCH (v:View {name: $name}) DELETE v", name=name)
    with pytest.raises(StoreReplacedError):
        first.apply([network.add("orders", who, line(who, "o", what, "g"))])
    assert dump(driver, network.mark)["ordered"] == {(who, what): (1, 1, 1_700_000_000_000)}


def test_its_constraints_and_indexes_are_there_and_graph_data_science_answers(driver, name):
    view_of(driver, name)
    found = driver.execute_query("SHOW CONSTRAINTS YIELD name, type RETURN name, type").records
    assert {each["name"] for each in found if "UNIQUENESS" in each["type"]} >= {
        "dealer_id", "product_id", "order_id", "region_name", "category_path", "view_name",
    }  # fmt: skip
    states = driver.execute_query("SHOW INDEXES YIELD name, state RETURN name, state").records
    assert ["line_event_id", "ONLINE"] in [each.values() for each in states]
    (version,) = driver.execute_query("RETURN gds.version() AS version").records
    assert version["version"].startswith("2.13")


@pytest.mark.fault
def test_neo4j_killed_in_the_middle_ends_as_a_recount(driver, name, graph, supervisor):
    ensure_topics(graph.kafka, TOPICS)
    registry = Registry(graph.registry)
    ids = registry.register_all(list(TOPICS))
    encode = {each: Encoder(each, ids[f"{each}-value"]).encode for each in TOPICS}
    network = Network(8)
    network.some(2_000)
    places = {}
    sender = producer(graph.kafka)

    def keep(number):
        def delivered(error, message):
            assert error is None
            places[number] = message.partition(), message.offset()

        return delivered

    events = told(network.log)
    with driver.session() as session:
        start = {f"{topic}:{part}": end for (topic, part), end in _ends(graph).items()}
        session.run("MERGE (v:View {name: $name}) SET v += $start", name=name, start=start).consume()
    view = GraphView(GraphStore(driver, "neo4j", name), registry.schema)
    stop = threading.Event()
    runner = threading.Thread(
        target=ViewRunner(graph.kafka, view, stop=stop, batch_records=20, group=f"g-{uuid.uuid4().hex}").run
    )
    runner.start()
    try:
        for number, (topic, key, record, *_) in enumerate(events):
            value = None if record is None else encode[topic](record)
            head = headers(f"{network.mark}-{number}", topic, "test", 1_700_000_000_000, key)
            sender.produce(topic, value, key=key.encode(), headers=head, on_delivery=keep(number))
            if number == 1_000:
                sender.flush(60)
                _until(lambda: _lines(driver, network.mark) > 50, "the first lines")
                os.kill(supervisor.child("neo4j").pid, signal.SIGKILL)
        assert sender.flush(60) == 0
        ends = _ends(graph)
        _until(lambda: _held(driver, name) == ends, "the end of the topics")
    finally:
        stop.set()
        runner.join(60)
    assert not runner.is_alive()
    sent = [(*event[:3], *places[number]) for number, event in enumerate(events)]
    assert dump(driver, network.mark) == recount(sent)


def _ends(settings):
    from confluent_kafka import Consumer, TopicPartition

    from connectors.kafka import partition_counts

    counts = partition_counts(settings.kafka)
    source = Consumer({**settings.kafka.client_config(), "group.id": uuid.uuid4().hex})
    try:
        return {
            (topic, number): source.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
            for topic in TOPICS
            for number in range(counts[topic])
        }
    finally:
        source.close()


def _held(driver, name):
    return store_module.position_in(
        driver.execute_query("MATCH (v:View {name: $name}) RETURN properties(v) AS held", name=name).records[0][
            "held"
        ]
    )


def _lines(driver, mark):
    query = "MATCH (o:Order)-[l:HOLDS]->() WHERE o.dealer_id STARTS WITH $mark RETURN count(l) AS n"
    return driver.execute_query(query, mark=mark).records[0]["n"]


def _until(done, what, patience_s=180.0):
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if done():
                return
        except Exception as error:  # the server is away for a while
            last = error
        else:
            last = None
        assert time.monotonic() < deadline, (what, last)
        time.sleep(0.2)
