"""The hybrid view: whatever comes, in any batches, through any crash, it ends at what the parts give."""

import random
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hybrid_world import WEIGHTS, Crash, LogPublisher, chunk_key, expected, fetch, newest, part
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_world import Log

from models.embedding.topics import FIRST, SECOND
from models.fusion import HYBRID
from streams.hybrid.publisher import key_of
from streams.hybrid.store import HybridStore, HybridStoreAwayError, HybridStoreDamagedError
from streams.views.hybrid_view import HybridView

PRODUCTS = ["a", "b", "c"]
SPACES = {"text": ("text@1", "text@2"), "graph": ("graph@1", "graph@2")}


class World:
    """A log, a store in a folder, and a process over both that can die and come back."""

    def __init__(self, folder: Path, crashes=None):
        self.log, self.folder, self.home = Log(), folder, FIRST
        self.publisher = LogPublisher(self.log, crashes)
        self.store = self.view = None

    def unread(self, position):
        for (name, number), messages in sorted(self.log.partitions.items()):
            if name in (FIRST, SECOND) and (lot := messages[position.get((name, number), 0) :]):
                yield lot

    def start(self):
        self.stop()
        self.store = HybridStore(self.folder)
        self.view = HybridView(
            self.store, self.publisher, lambda _: fetch(1), WEIGHTS, lambda: self.home, self.unread
        )
        self.at = defaultdict(int, self.view.positions())

    def stop(self):
        if self.store is not None:
            self.store.close()
        self.store = None

    def catch_up(self, rng: random.Random):
        """Apply what is there in batches of any size, until nothing is left: its own vectors come, too."""
        while waiting := [
            (place, messages)
            for place, messages in sorted(self.log.partitions.items())
            if self.at[place] < len(messages)
        ]:
            place, messages = rng.choice(waiting)
            lot = messages[self.at[place] :][: rng.randint(1, 5)]
            self.view.apply(lot)
            self.at[place] += len(lot)

    def surviving(self, act):
        """Do it; as often as it dies, start again."""
        while True:
            try:
                if self.store is None:
                    self.start()
                return act()
            except Crash:
                self.stop()

    def published(self):
        return {
            each["subject_id"]: (each["encoder"], np.frombuffer(each["vector"], "<f4"))
            for each in newest(self.log).values()
            if each["kind"] == HYBRID
        }

    def check(self):
        found, wanted = self.published(), expected(self.log, self.home)
        assert found.keys() == wanted.keys()
        for product, (encoder, vector) in wanted.items():
            assert found[product][0] == encoder
            assert found[product][1] == pytest.approx(vector, abs=1e-6)

    def runs(self) -> Counter:
        """How often each product's vector was said again without a change in between."""
        again: Counter = Counter()
        keys = {key_of(product).encode() for product in PRODUCTS}
        for (name, _), messages in self.log.partitions.items():
            last: dict[bytes, object] = {}
            for each in messages:
                if name == FIRST and each.key() in keys:
                    said = None if each.record is None else each.record["fingerprint"]
                    if each.key() in last and last[each.key()] == said:
                        again[each.key()] += 1
                    last[each.key()] = said
        return again


events = st.lists(
    st.tuples(
        st.sampled_from(PRODUCTS), st.sampled_from(["text", "graph"]), st.integers(0, 5), st.integers(0, 1),
        st.integers(0, 1), st.booleans(), st.sampled_from([False, False, True]),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    events, st.integers(0, 2**32), st.dictionaries(st.integers(1, 8), st.integers(1, 2), max_size=4), st.data()
)
def test_it_ends_at_what_the_newest_parts_give_and_says_nothing_twice(
    tmp_path_factory, log_of, seed, crashes, data
):
    rng = random.Random(seed)
    world = World(tmp_path_factory.mktemp("hybrid"), crashes)
    try:
        for product, kind, vector, space, number, second, gone in log_of:
            number = number if kind == "text" else 0
            name = SECOND if kind == "text" and second else FIRST
            record = None if gone else part(product, kind, vector, encoder=SPACES[kind][space], number=number)
            world.log.add(name, chunk_key(product, kind, number), record)
            if rng.random() < 0.3:
                world.surviving(lambda: world.catch_up(rng))
            if rng.random() < 0.1:
                world.stop()  # a kill between two batches
            if rng.random() < 0.1:
                world.home = data.draw(st.sampled_from([FIRST, SECOND]))
        world.surviving(lambda: (world.view.tick(), world.catch_up(rng), world.view.tick()))
        world.check()
        assert not world.runs()
        before = sum(map(len, world.log.partitions.values()))
        world.start()
        world.catch_up(rng)
        assert sum(map(len, world.log.partitions.values())) == before
    finally:
        world.stop()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    for product in PRODUCTS:
        made.log.add(FIRST, chunk_key(product, "text"), part(product, "text", ord(product)))
        made.log.add(FIRST, chunk_key(product, "graph"), part(product, "graph", ord(product)))
    made.start()
    yield made
    made.stop()


def own(world):
    return [
        each
        for (name, _), messages in world.log.partitions.items()
        for each in messages
        if name == FIRST and (each.record is None or each.record["kind"] == HYBRID)
    ]


def test_a_store_that_is_lost_is_filled_again_and_nothing_is_published_twice(world):
    world.catch_up(random.Random(1))
    world.stop()
    for each in world.folder.iterdir():
        each.unlink()
    world.start()
    world.check()
    assert len(own(world)) == len(PRODUCTS)
    assert world.store.positions() == {
        place: len(messages) for place, messages in world.log.partitions.items() if messages
    }


def test_a_product_whose_text_goes_loses_its_vector_once(world):
    world.log.add(FIRST, chunk_key("a", "text"), None)
    world.catch_up(random.Random(1))
    world.log.add(FIRST, chunk_key("a", "graph"), None)
    world.catch_up(random.Random(2))
    world.check()
    assert "a" not in world.published()
    assert [each.record for each in own(world) if each.key().decode() == key_of("a")][1:] == [None]


def test_a_vector_that_somebody_takes_back_is_published_again(world):
    world.catch_up(random.Random(1))
    world.log.add(FIRST, key_of("b"), None)
    world.catch_up(random.Random(2))
    world.check()
    assert "b" in world.published()


def test_records_that_are_wrong_or_of_others_change_nothing(world):
    world.catch_up(random.Random(1))
    before = len(own(world))
    for number, wrong in enumerate(
        (
            {"vector": b"1234"},
            {"vector": np.full(4, np.nan, "<f4").tobytes()},
            {"chunk_id": "other"},
            {"subject_type": "document"},
            {"kind": "image"},
        )
    ):
        key = chunk_key("a", "text", 10 + number)
        world.log.add(FIRST, key, part("a", "text", 99, number=10 + number) | wrong)
    world.catch_up(random.Random(2))
    assert len(own(world)) == before


def test_what_the_store_did_not_keep_after_kafka_did_is_not_published_again(world, monkeypatch):
    world.catch_up(random.Random(1))
    world.log.add(FIRST, chunk_key("a", "text"), part("a", "text", 77))
    place, lot = next(
        (place, messages[world.at[place] :])
        for place, messages in world.log.partitions.items()
        if world.at[place] < len(messages)
    )
    keep, tries = world.store.keep, []

    def full(changes):
        tries.append(changes)
        if len(tries) == 2:  # the first one keeps what the try before left over, and that is nothing
            raise HybridStoreAwayError("database or disk is full")
        keep(changes)

    monkeypatch.setattr(world.store, "keep", full)
    with pytest.raises(HybridStoreAwayError):
        world.view.apply(lot)
    before = len(own(world))
    world.view.apply(lot)  # as the runner does
    world.at[place] += len(lot)
    world.catch_up(random.Random(3))
    assert len(own(world)) == before == len(PRODUCTS) + 1
    world.check()


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    file = tmp_path / "parts.db"
    file.write_bytes(b"no database at all, " * 100)
    with pytest.raises(HybridStoreDamagedError, match="not a database"):
        HybridStore(tmp_path)
    file.unlink()
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(HybridStoreDamagedError, match="format 9"):
        HybridStore(tmp_path)


def test_two_processes_do_not_share_a_store(world, monkeypatch):
    monkeypatch.setattr("streams.hybrid.store._WAIT_S", 0.1)
    with pytest.raises(HybridStoreAwayError, match="locked"):
        HybridStore(world.folder)
