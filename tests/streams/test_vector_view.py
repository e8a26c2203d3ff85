"""The vector view: any interleaving, repeat and crash ends as the fold of what the topics hold."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_world import (
    KINDS,
    KilledError,
    Log,
    Message,
    Mortal,
    Shaky,
    embedding,
    fetch,
    folded,
    graph_embedding,
    held,
    level,
    product,
    random_log,
    run,
)

from connectors.vectors import Entry
from connectors.vectors.edge import EdgeIndex
from models.embedding import Owner, split
from models.search.fields import KEYWORDS, NUMBERS
from models.search.vocabulary import Vocabulary, words
from streams.views.vector_fold import OwnerState
from streams.views.vector_view import VectorView


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    index = EdgeIndex(tmp_path_factory.mktemp("index") / "v", KINDS, KEYWORDS, NUMBERS)
    yield index
    index.close()


def emptied(index):
    """Making an index takes longer than emptying one."""
    index.delete([each.id for each in index.scan()])
    index.move(dict.fromkeys(index.positions(), 0))
    return index


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    events=st.integers(1, 40),
    crashes=st.lists(st.integers(0, 25), max_size=4),
)
def test_any_interleaving_repeat_and_crash_is_the_fold_of_the_topics(opened, seed, events, crashes):
    rng = random.Random(seed)
    log, index = random_log(rng, events), emptied(opened)
    for writes in crashes:
        try:
            run(log, Mortal(index, writes), rng)
        except KilledError:
            continue
    run(log, index, rng)
    assert held(index) == folded(log)
    # Once more from the beginning, as when a position was lost.
    index.move(dict.fromkeys(log.partitions, 0))
    run(log, index, rng)
    assert held(index) == folded(log)
    ends = {at: len(messages) for at, messages in log.partitions.items()}
    assert ends.items() <= index.positions().items()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), events=st.integers(1, 40), share=st.floats(0.02, 0.3))
def test_an_index_that_is_away_is_waited_for_and_ends_as_the_fold(opened, seed, events, share):
    rng = random.Random(seed)
    log, index, vocabulary = random_log(rng, events), emptied(opened), Vocabulary()
    run(log, Shaky(index, rng, share), rng, vocabulary)
    assert held(index) == folded(log)
    texts = [each.fields["text"] for each in index.scan() if "text" in each.fields]
    assert vars(vocabulary)["_texts"] == vars(Vocabulary(texts))["_texts"]


@pytest.fixture
def index(opened):
    return emptied(opened)


def apply(index, *records, vocabulary=None):
    log = Log()
    for name, key, record in records:
        log.add(name, key, record)
    view, refused = VectorView(index, fetch, vocabulary), []
    view.letters = refused.extend
    view.apply([message for messages in log.partitions.values() for message in messages])
    return refused


def test_a_price_that_rises_and_falls_in_one_batch_is_not_left_between_by_crashes(index):
    owner = Owner("product", "1")
    (chunk,) = split("products", "1", product("1"))
    log = Log()
    log.add("products", "1", product("1", price=1.0))
    run(log, index, random.Random(0))
    for price in (2.0, 1.0):
        log.add("products", "1", product("1", price=price))
    log.add("embeddings", chunk.id, embedding(owner, chunk))
    log.add("inventory", "x", level("x", "2", 3, 1_500_000_000_000))
    (_, between, after), (vector,), (other,) = log.partitions.values()
    for batch in ([between, vector], [other]):  # the vector is written with what was between
        view = VectorView(Mortal(index, 2), fetch)
        with pytest.raises(KilledError):
            view.apply(batch)
    last = VectorView(index, fetch)
    last.apply([between, after, vector])
    last.apply([other])
    assert held(index) == folded(log)


def test_a_vector_that_cannot_be_is_a_dead_letter_and_another_encoders_is_passed_over(index):
    owner = Owner("product", "1")
    (chunk,) = split("products", "1", product("1"))
    good = embedding(owner, chunk)
    bad = [
        (chunk.id, good | {"vector": good["vector"][:-1]}, "12 bytes|15 bytes"),
        (chunk.id, good | {"dimension": 3}, "a vector of 3 numbers"),
        (chunk.id, good | {"vector": np.full(4, np.nan, "<f4").tobytes()}, "not finite"),
        ("elsewhere", good, "the key is 'elsewhere'"),
    ]
    for key, record, told in bad:
        ((_, error),) = apply(index, ("embeddings", key, record))
        assert any(part in str(error) for part in told.split("|"))
    assert apply(index, ("embeddings", chunk.id, good | {"encoder": "other@1"})) == []
    assert apply(index, ("embeddings", chunk.id, good | {"kind": "image"})) == []
    graph = graph_embedding(owner)
    ((_, error),) = apply(index, ("embeddings", graph["chunk_id"], graph | {"dimension": 4}))
    assert "where graph-test@a has 3 in 12" in str(error)
    assert apply(index, ("embeddings", graph["chunk_id"], graph | {"encoder": "graph-other@a"})) == []
    assert index.count() == 0


def test_a_change_of_price_or_stock_needs_no_vector(index):
    owner = Owner("product", "1")
    (chunk,) = split("products", "1", product("1"))
    apply(index, ("products", "1", product("1")), ("embeddings", chunk.id, embedding(owner, chunk)))
    before = index.get([chunk.id], vectors=True)[chunk.id]
    log = Log()
    log.partitions["products", 1] = [
        Message("products", "1", product("1", price=9.5), 1, 7),
    ]
    log.add("inventory", "x", level("x", "1", 4, 1_500_000_000_000))
    VectorView(index, fetch).apply([m for ms in log.partitions.values() for m in ms])
    after = index.get([chunk.id], vectors=True)[chunk.id]
    assert (after.fields["price"], after.fields["stock"], after.fields["stocked_by"]) == (9.5, 4, ["x"])
    assert np.array_equal(before.dense["text"], after.dense["text"])


def test_a_graph_vector_stands_beside_the_text_of_its_product_with_the_same_fields(index):
    owner = Owner("product", "1")
    (chunk,) = split("products", "1", product("1"))
    vocabulary = Vocabulary()
    records = [graph_embedding(owner), graph_embedding(Owner("dealer", "x"))]
    apply(
        index,
        ("products", "1", product("1", price=3.0)),
        ("embeddings", chunk.id, embedding(owner, chunk)),
        *(("embeddings", each["chunk_id"], each) for each in records),
        vocabulary=vocabulary,
    )
    found = index.get([each["chunk_id"] for each in records], vectors=True)
    graph, dealer = (found[each["chunk_id"]] for each in records)
    assert (graph.fields["owner"], graph.fields["entry"], graph.fields["price"]) == ("product/1", "graph", 3.0)
    assert "text" not in graph.fields
    assert (dealer.fields["owner"], dealer.fields["live"]) == ("dealer/x", "true")
    assert graph.dense.keys() == {"graph"}
    log = Log()
    log.partitions["products", 1] = [Message("products", "1", product("1", price=4.0), 1, 9)]
    log.partitions["embeddings", 0] = [Message("embeddings", records[1]["chunk_id"], None, 0, 99)]
    VectorView(index, fetch, vocabulary).apply([m for ms in log.partitions.values() for m in ms])
    assert index.get([graph.id])[graph.id].fields["price"] == 4.0
    assert index.get([dealer.id]) == {}
    assert len(vocabulary) > 0


def test_the_vocabulary_follows_what_comes_and_goes(index):
    owner, vocabulary = Owner("product", "1"), Vocabulary()
    (chunk,) = split("products", "1", product("1", name="Chainsaw"))
    apply(index, ("embeddings", chunk.id, embedding(owner, chunk)), vocabulary=vocabulary)
    assert vocabulary.correct("chiansaw") == "chainsaw"
    log = Log()
    log.partitions["embeddings", 0] = [Message("embeddings", chunk.id, None, 0, 99)]
    VectorView(index, fetch, vocabulary).apply(log.partitions["embeddings", 0])
    assert vocabulary.correct("chiansaw") is None
    assert len(vocabulary) == 0
    assert words("Größe, a-b") == [("grosse", 0, 5), ("a", 7, 8), ("b", 9, 10)]
    assert isinstance(index.get([]), dict)
    assert Entry("0" * 32).fields == {}


FIRST = 1_500_000_000_000


def told(log, offset, **more):
    """A record of the one product of `log`, at an offset."""
    log.partitions["products", 1].append(Message("products", "1", product("1", **more), 1, offset))
    return log.partitions["products", 1][-1]


def test_a_record_that_says_the_same_again_counts_and_writes_no_entry_of_its_own(index):
    owner, log = Owner("product", "1"), Log()
    (chunk,) = split("products", "1", product("1"))
    log.add("embeddings", chunk.id, embedding(owner, chunk))
    view = VectorView(index, fetch)
    view.apply(log.partitions["embeddings", sum(chunk.id.encode()) % 2])
    view.apply([told(log, 0, price=2.0, event_time=FIRST)])
    entry = index.get([OwnerState.entry_id(owner)])
    view.apply([told(log, 1, price=2.0, event_time=FIRST + 20)])
    view.apply([told(log, 2, price=2.0, event_time=FIRST + 15)])  # late, and nothing new
    assert index.get([OwnerState.entry_id(owner)]) == entry
    late = told(log, 3, price=7.0, event_time=FIRST + 18)
    for each in (view, VectorView(index, fetch)):  # and another process knows as much
        each.apply([late])
        assert held(index) == folded(log)
        assert held(index)[chunk.id][0]["price"] == 2.0
    view = VectorView(index, fetch)
    # In one batch: the same, another, and the first again.
    view.apply(
        [
            told(log, 4, price=2.0, event_time=FIRST + 21),
            told(log, 5, price=9.0, event_time=FIRST + 22),
            told(log, 6, price=2.0, event_time=FIRST + 23),
            told(log, 7, price=9.0, event_time=FIRST + 22),
        ]
    )
    assert held(index) == folded(log)
    view.apply([told(log, 8, price=2.0, event_time=FIRST + 30)])
    log.partitions["products", 1].append(Message("products", "1", None, 1, 9))
    view.apply(log.partitions["products", 1][-1:])
    assert held(index) == folded(log)
    view.apply([told(log, 10, price=2.0, event_time=FIRST)])  # what was forgotten comes again
    assert held(index) == folded(log)
    assert held(index)[chunk.id][0]["live"] == "true"


def test_levels_of_an_owner_whose_record_says_the_same_again_keep_its_time(index):
    log, view = Log(), VectorView(index, fetch)
    view.apply([told(log, 0, event_time=FIRST)])
    log.add("inventory", "x", level("x", "1", 3, FIRST))
    (stock,) = log.partitions["inventory", sum(b"x") % 2]
    view.apply([told(log, 1, event_time=FIRST + 20), stock])
    VectorView(index, fetch).apply([told(log, 2, name="Saw", event_time=FIRST + 10)])  # too late
    (state,) = (
        OwnerState.of(owner := Owner("product", "1"), identity := OwnerState.entry_id(owner), entry)
        for entry in index.get([OwnerState.entry_id(Owner("product", "1"))]).values()
    )
    assert (state.time_ms, state.offset, state.given["name"]) == (FIRST + 20, 1, "Thing 1")
    assert state.stock == {"x": [3, FIRST, 0]}
    assert identity == state.id
