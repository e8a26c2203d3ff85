"""What the graph answers, against a recount of the orders; over HTTP by the client, as an application asks."""

import math
import uuid
from collections import defaultdict

import pytest
from graph_world import Network, fetch, line, product

from connectors.neo4j.driver import connect
from connectors.neo4j.settings import GraphSettings
from dealeriq.client import DealerIQ, RequestError, RetryPolicy, UnavailableError, UnknownNameError
from dealeriq.http.app import Application
from dealeriq.http.graph import GraphSource
from dealeriq.http.server import beside
from dealeriq.http.settings import HttpSettings
from dealeriq.http.stored import StoredFeatures
from features.plan import load as load_plan
from streams.graph.reader import log_likelihood
from streams.graph.store import GraphStore
from streams.views.graph_view import GraphView

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def network(graph):
    """Orders at random, of which products 0 and 1 are a pair: who buys one mostly buys the other."""
    made = Network(21)
    pick = made.pick
    lines = []
    for number in range(120):
        who = pick.choice(made.dealers)
        held = set(pick.sample(made.products[2:], pick.randrange(1, 4)))
        if number % 3 == 0:
            held |= set(made.products[:2]) if pick.random() < 0.9 else {made.products[0]}
        for at, what in enumerate(sorted(held)):
            time = 1_700_000_000_000 + number
            lines.append(line(who, f"o{number}", what, f"{number}-{at}", event_time=time))
    with connect(graph.graph) as driver:
        view = GraphView(GraphStore(driver, "neo4j", f"view-{uuid.uuid4().hex[:8]}"), fetch)
        view.positions()
        for number, what in enumerate(made.products):
            category = "A" if number < 4 else "B"
            made.add("products", what, product(what, category=made.mark + category, deleted=number == 3))
        for each in lines:
            made.add("orders", each["dealer_id"], each)
        view.apply(made.log)
    made.lines = lines
    return made


@pytest.fixture(scope="module")
def client(graph, stack):
    source = StoredFeatures(stack.redis.address, load_plan(project="nobody"), timeout=1.0)
    application = Application(HttpSettings(), source, graph=GraphSource(graph.graph))
    server = beside(application, "test", "127.0.0.1", port := free_port())
    with DealerIQ(f"http://127.0.0.1:{port}", timeout=60) as found:
        yield found
    server.should_exit = True


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def orders_of(network):
    found = defaultdict(set)
    for each in network.lines:
        found[each["dealer_id"], each["order_id"]].add(each["product_id"])
    return list(found.values())


def g_test(together, first, second, total):
    """The same statistic from observed and expected counts."""
    observed = [[together, first - together], [second - together, total - first - second + together]]
    found = 0.0
    for i, row in enumerate(observed):
        for j, count in enumerate(row):
            expected = sum(row) * (observed[0][j] + observed[1][j]) / total
            found += count * math.log(count / expected) if count and i < 2 else 0.0
    return 2 * found


@pytest.mark.parametrize("counts", [(10, 20, 30, 1_000), (1, 1, 1, 10), (5, 5, 9, 50), (0, 3, 4, 100)])
def test_the_score_is_the_g_statistic(counts):
    assert log_likelihood(*counts) == pytest.approx(g_test(*counts), abs=1e-9)


def test_bought_together_counts_orders_that_hold_both(client, network):
    first, other, orders = network.products[0], network.products[1], orders_of(network)
    answer = client.bought_together(first, limit=100)
    assert answer.name == f"Thing {first}"
    assert answer.orders == sum(first in held for held in orders)
    assert answer.products[0].product_id == other
    for each in answer.products:
        assert each.together == sum({first, each.product_id} <= held for held in orders)
        assert each.lines == sum(one["product_id"] == each.product_id for one in network.lines)
        lift = each.together * answer.all_orders / (answer.orders * each.lines)
        assert each.lift == pytest.approx(lift, abs=1e-3)
        assert each.lift > 1
        score = g_test(each.together, answer.orders, each.lines, answer.all_orders)
        assert each.score == pytest.approx(score, abs=1e-3)
    assert [each.score for each in answer.products] == sorted((e.score for e in answer.products), reverse=True)
    assert network.products[3] not in {each.product_id for each in answer.products}  # no longer offered
    assert len(client.bought_together(first, limit=1).products) == 1


def test_compatible_products_share_the_class_and_are_ranked_by_shared_dealers(client, network):
    dealers = defaultdict(set)
    for each in network.lines:
        dealers[each["product_id"]].add(each["dealer_id"])
    asked = network.products[2]
    answer = client.compatible(asked)
    assert answer.class_path == f"{network.mark}A"
    assert answer.dealers == len(dealers[asked])
    wanted = sorted(
        (-len(dealers[each] & dealers[asked]), each)
        for each in network.products[:2]
        if dealers[each] & dealers[asked]
    )
    assert [(-each.dealers, each.product_id) for each in answer.products] == wanted


def test_similar_dealers_are_those_with_the_same_products(client, network):
    products = defaultdict(set)
    for each in network.lines:
        products[each["dealer_id"]].add(each["product_id"])
    asked = network.dealers[0]
    answer = client.similar_dealers(asked)
    found = {each.dealer_id: (each.shared, each.products, round(each.score, 5)) for each in answer.dealers}
    assert found == {
        other: (
            len(held & products[asked]),
            len(held),
            round(len(held & products[asked]) / math.sqrt(len(held) * len(products[asked])), 5),
        )
        for other, held in products.items()
        if other != asked
    }


def test_what_cannot_be_answered_says_why(client, network, stack):
    evil = network.mark + "'}) DETACH DELETE n //"
    for ask in (client.bought_together, client.compatible, client.similar_dealers):
        with pytest.raises(UnknownNameError, match="is in the graph"):
            ask(evil)
        with pytest.raises(RequestError, match="from 1 to 100"):
            ask(network.products[0], limit=101)
    source = StoredFeatures(stack.redis.address, load_plan(project="nobody"), timeout=1.0)
    away = GraphSettings(url=f"bolt://127.0.0.1:{free_port()}", timeout_s=1)
    for settings, words in ((GraphSettings(), "given no graph"), (away, "cannot do it now")):
        application = Application(HttpSettings(), source, graph=GraphSource(settings))
        server = beside(application, "test", "127.0.0.1", port := free_port())
        retry = RetryPolicy(attempts=1)
        with (
            DealerIQ(f"http://127.0.0.1:{port}", timeout=60, retry=retry) as asked,
            pytest.raises(UnavailableError, match=words),
        ):
            asked.similar_dealers("1")
        server.should_exit = True
