"""What every vector index promises: one suite, run against each implementation."""

import re
import subprocess
import sys
import textwrap
import uuid

import numpy as np
import pytest
from qdrant_client import QdrantClient

from connectors.vectors import (
    FORMAT,
    AnyOf,
    Between,
    Encoding,
    Entry,
    IndexBusyError,
    IndexDamagedError,
    IndexUnavailableError,
    OwnOrNone,
    Sparse,
    WrongFormatError,
)
from connectors.vectors.edge import EdgeIndex
from connectors.vectors.folder import IndexFolder
from connectors.vectors.lexical import Lexical
from connectors.vectors.server import ServerIndex
from connectors.vectors.weaviate import WeaviateIndex, WeaviateRefusedError, connect, drop
from schemas.ids import event_id

KEYWORDS, NUMBERS, DIMENSION, ENCODER = ("kind", "dealer"), ("price",), 8, "test@1"
KINDS = {"text": Encoding(ENCODER, DIMENSION), "graph": Encoding("graph-test", 3)}
RNG = np.random.default_rng(7)


def edge(folder, kinds=KINDS):
    return EdgeIndex(folder / "index", kinds, KEYWORDS, NUMBERS)


SERVERS = {}


def server(folder, kinds=KINDS):
    """The server's interface as its own client serves it in memory; it outlives us, as a server does."""
    if folder not in SERVERS:
        SERVERS[folder] = QdrantClient(":memory:")
        SERVERS[folder].close = lambda: None
    return ServerIndex(SERVERS[folder], "index", kinds, KEYWORDS, NUMBERS)


def weaviate(folder, kinds=KINDS):
    """A collection of the test's own on one real server."""
    return WeaviateIndex(connect(folder[0].address), folder[1], kinds, KEYWORDS, NUMBERS)


IMPLEMENTATIONS = {"edge": edge, "server": server, "weaviate": weaviate}


@pytest.fixture(params=IMPLEMENTATIONS)
def reopen(request, tmp_path):
    """Opens the same index, again and again; the last one is closed at the end."""
    opened = []
    where = tmp_path
    if request.param == "weaviate":
        where = (request.getfixturevalue("weaviate_server"), f"T{uuid.uuid4().hex}")

    def again(kinds=KINDS):
        if opened:
            opened.pop().close()
        opened.append(IMPLEMENTATIONS[request.param](where, kinds))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


@pytest.fixture
def index(reopen):
    return reopen()


def name(number):
    return event_id("test", number)


def vectors(count, dimension=DIMENSION):
    found = RNG.standard_normal((count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def dump(index):
    return {
        each.id: (each.fields, {kind: of.round(5).tolist() for kind, of in each.dense.items()}, each.sparse)
        for each in index.scan(vectors=True)
    }


class TestContract:
    def test_what_is_put_is_there_and_what_is_put_again_replaces_it(self, index):
        (one, two) = vectors(2)
        index.put(
            [
                Entry(name(1), {"kind": "a", "none": None, "deep": {"x": [1]}}, {"text": one}),
                Entry(name(2), {"kind": "b"}),
            ]
        )
        index.put([Entry(name(1), {"kind": "c"}, {"text": two}, Sparse([3, 5], [0.5, 1.5]))])
        found = index.get([name(1), name(2), name(3)], vectors=True)
        assert found.keys() == {name(1), name(2)}
        assert found[name(1)].fields == {"kind": "c"}
        assert np.allclose(found[name(1)].dense["text"], two, atol=1e-6)
        assert (list(found[name(1)].sparse.terms), list(found[name(1)].sparse.weights)) == ([3, 5], [0.5, 1.5])
        assert found[name(1)].dense.keys() == {"text"}
        assert found[name(2)].dense == {}
        assert found[name(2)].sparse is None
        assert index.get([name(1)])[name(1)].dense == {}
        assert index.get([]) == {}

    def test_fields_are_set_beside_others_and_the_vectors_stay(self, index):
        (one,) = vectors(1)
        index.put([Entry(name(1), {"kind": "a", "price": 1.0}, {"text": one})])
        index.set_fields({name(1): {"price": None, "dealer": ["x"]}, name(2): {"price": 5.0}})
        found = index.get([name(1), name(2)], vectors=True)
        assert found.keys() == {name(1)}
        assert found[name(1)].fields == {"kind": "a", "dealer": ["x"]}
        assert np.allclose(found[name(1)].dense["text"], one, atol=1e-6)

    def test_what_is_deleted_is_gone_and_may_come_again(self, index):
        (one,) = vectors(1)
        index.put([Entry(name(1), {"kind": "a"}, {"text": one})])
        index.delete([name(1), name(2)])
        assert index.get([name(1)]) == {}
        assert index.near("text", one, 5) == []
        index.put([Entry(name(1), {"kind": "b"}, {"text": one})])
        assert [each.fields for each in index.near("text", one, 5)] == [{"kind": "b"}]

    def test_the_nearest_are_those_of_brute_force(self, index):
        stored, asked = vectors(300), vectors(20)
        index.put([Entry(name(at), {"at": at}, {"text": each}) for at, each in enumerate(stored)])
        for vector in asked:
            cosines = stored @ vector
            wanted = np.argsort(-cosines)[:10]
            found = index.near("text", vector, 10)
            assert [each.fields["at"] for each in found] == wanted.tolist()
            assert np.allclose([each.score for each in found], cosines[wanted], atol=1e-5)

    @pytest.mark.parametrize("meet", ["nine in ten", "half", "few", "the far ones", "none"])
    def test_the_nearest_that_meet_a_condition_are_those_of_brute_force(self, index, meet):
        stored, asked = vectors(300), vectors(10)
        near_first = np.argsort(-(stored @ asked[0]))
        chosen = {
            "nine in ten": range(270),
            "half": range(0, 300, 2),
            "few": range(0, 300, 60),
            "the far ones": near_first[120:].tolist(),
            "none": (),
        }[meet]
        kinds = ["b"] * 300
        for at in chosen:
            kinds[at] = "a"
        index.put(
            [Entry(name(at), {"at": at, "kind": kinds[at]}, {"text": each}) for at, each in enumerate(stored)]
        )
        for vector in asked:
            wanted = [at for at in np.argsort(-(stored @ vector)).tolist() if kinds[at] == "a"][:10]
            found = index.near("text", vector, 10, [AnyOf("kind", ["a"])])
            assert [each.fields["at"] for each in found] == wanted

    def test_each_kind_is_searched_by_itself_and_an_entry_may_have_several(self, index):
        text, graph = vectors(40), vectors(40, 3)
        index.put([Entry(name(at), {"at": at}, {"text": text[at]}) for at in range(30)])
        index.put([Entry(name(at), {"at": at}, {"graph": graph[at]}) for at in range(30, 35)])
        both = [Entry(name(at), {"at": at}, {"text": text[at], "graph": graph[at]}) for at in range(35, 40)]
        index.put(both)
        for kind, stored, those in (
            ("text", text, [*range(30), *range(35, 40)]),
            ("graph", graph, range(30, 40)),
        ):
            asked = vectors(1, stored.shape[1])[0]
            found = index.near(kind, asked, 100)
            assert [each.fields["at"] for each in found] == sorted(those, key=lambda at: -(stored[at] @ asked))
        assert index.get([name(36)], vectors=True)[name(36)].dense.keys() == {"text", "graph"}
        # Put again without one of them, it has that no more.
        index.put([Entry(name(36), {"at": 36}, {"text": text[36]})])
        assert 36 not in {each.fields["at"] for each in index.near("graph", graph[36], 100)}

    def test_an_index_of_other_kinds_or_encoders_is_refused_with_what_differs(self, reopen):
        index = reopen()
        index.put([Entry(name(1), {"kind": "a"}, {"text": vectors(1)[0]})])
        graph = KINDS["graph"]
        for kinds, told in (
            (
                {"text": Encoding("test@2", DIMENSION), "graph": graph},
                "text vectors of test@1 (8 numbers), wanted",
            ),
            ({"text": Encoding(ENCODER, 9), "graph": graph}, "wanted are those of test@1 (9 numbers)"),
            ({"text": KINDS["text"]}, "graph vectors, which the settings do not name"),
            (KINDS | {"image": Encoding("eye@1", 5)}, "image vectors of no encoder, wanted are those of eye@1"),
        ):
            with pytest.raises(WrongFormatError, match=re.escape(told)) as caught:
                reopen(kinds)
            assert "index rebuild" in caught.value.remedy
        assert reopen().count() == 1

    def test_words_are_scored_by_bm25(self, index):
        texts = ["red apple", "green apple apple", "yellow banana", "red car and red bus", "apple pie"]
        lexical = Lexical()
        entries = [Entry(name(i), {"at": i}, sparse=lexical.document(text)) for i, text in enumerate(texts)]
        index.put([*entries, Entry(name(99), {"at": 99})])
        query = lexical.query("red apples")
        holding = {term: sum(term in each.sparse.terms for each in entries) for term in query.terms}
        expected = {}
        for at, each in enumerate(entries):
            weights = dict(zip(each.sparse.terms, each.sparse.weights, strict=True))
            expected[at] = sum(
                weights.get(term, 0) * np.log((5 - holding[term] + 0.5) / (holding[term] + 0.5) + 1)
                for term in query.terms
            )
        found = {each.fields["at"]: each.score for each in index.matching(query, 10)}
        assert found.keys() == {0, 1, 3, 4}
        order = sorted(found, key=lambda at: -found[at])
        assert order == sorted(found, key=lambda at: -expected[at])
        for at, score in found.items():
            assert score == pytest.approx(expected[at], rel=0.3)  # an engine may count entries without words
        assert index.matching(Sparse([], []), 10) == []

    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            ([], {0, 1, 2, 3}),
            ([AnyOf("kind", ["a"])], {0, 2}),
            ([AnyOf("kind", ["a", "b"])], {0, 1, 2}),
            ([Between("price", 2, 3)], {1, 2}),
            ([Between("price", None, 1)], {0}),
            ([Between("price", 3, None), AnyOf("kind", ["a"])], {2}),
            ([OwnOrNone("dealer", None)], {0, 3}),
            ([OwnOrNone("dealer", "x")], {0, 1, 3}),
            ([AnyOf("dealer", ["y"])], {2}),
            ([AnyOf("kind", ["nothing"])], set()),
        ],
    )
    def test_conditions_hold_for_every_way_to_ask(self, index, conditions, expected):
        fields = [
            {"kind": "a", "price": 1},
            {"kind": "b", "price": 2.0, "dealer": "x"},
            {"kind": "a", "price": 3.0, "dealer": ["y", "z"]},
            {"kind": "c", "price": None, "dealer": None},
        ]
        stored, lexical = vectors(4), Lexical()
        index.put(
            [
                Entry(name(at), each | {"at": at}, {"text": stored[at]}, lexical.document("apple"))
                for at, each in enumerate(fields)
            ]
        )
        assert {at for at, each in enumerate(fields) if all(one.met(each) for one in conditions)} == expected
        assert {each.fields["at"] for each in index.scan(conditions)} == expected
        assert {each.fields["at"] for each in index.near("text", stored[0], 10, conditions)} == expected
        assert {
            each.fields["at"] for each in index.matching(lexical.query("apple"), 10, conditions)
        } == expected
        assert index.count(conditions) == len(expected)

    def test_a_scan_gives_each_entry_once_and_nothing_of_its_own(self, index):
        index.put([Entry(name(at), {"at": at}) for at in range(25)])
        index.move({("products", 1): 5})
        assert sorted(each.fields["at"] for each in index.scan(batch=7)) == list(range(25))
        assert index.count() == 25

    def test_everything_is_there_after_opening_again(self, reopen):
        index = reopen()
        assert index.positions() == {}
        index.put([Entry(name(at), {"kind": "a"}, {"text": each}) for at, each in enumerate(vectors(5))])
        index.move({("products", 0): 7, ("embeddings", 3): 9})
        index.move({("products", 0): 8})
        index.set_fields({name(1): {"kind": "b"}})
        index.delete([name(2)])
        before = dump(index)
        assert len(before) == 4
        index = reopen()
        assert dump(index) == before
        assert index.positions() == {("products", 0): 8, ("embeddings", 3): 9}


def test_what_a_weaviate_refuses_or_does_not_answer_is_told(weaviate_server):
    name = f"T{uuid.uuid4().hex}"
    index = weaviate((weaviate_server, name))
    index.put([Entry(event_id("test", 1), {"kind": 'a"}]}){'}, {"text": vectors(1)[0]})])
    assert [each.fields for each in index.scan([AnyOf("kind", ['a"}]}){'])])] == [{"kind": 'a"}]}){'}]
    with pytest.raises(WeaviateRefusedError, match=r"vector lengths|dimension|length"):
        index.put([Entry(event_id("test", 1), {}, {"text": np.ones(9, np.float32)})])
    with connect(weaviate_server.address) as client:
        drop(client, name)
        drop(client, name)
        with pytest.raises(WeaviateRefusedError):
            index.count()
        fresh = WeaviateIndex(client, name, KINDS, KEYWORDS, NUMBERS)
        assert fresh.count() == 0
    with pytest.raises(IndexUnavailableError, match="does not answer"):
        WeaviateIndex(connect("http://127.0.0.1:9"), name, KINDS, KEYWORDS, NUMBERS)


def test_what_was_written_survives_kill_9(tmp_path):
    code = f"""
        import os, numpy as np
        from pathlib import Path
        from connectors.vectors import Encoding, Entry
        from connectors.vectors.edge import EdgeIndex
        from schemas.ids import event_id
        folder = Path({str(tmp_path)!r}) / "index"
        kinds = {{"text": Encoding({ENCODER!r}, {DIMENSION}), "graph": Encoding("graph-test", 3)}}
        index = EdgeIndex(folder, kinds, {KEYWORDS!r}, {NUMBERS!r})
        for at in range(50):
            index.put([Entry(event_id("test", at), {{"at": at}}, {{"text": np.ones({DIMENSION}, "float32")}})])
            index.move({{("products", 0): at + 1}})
        index.delete([event_id("test", 3)])
        os.kill(os.getpid(), 9)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, timeout=120)
    assert ran.returncode == -9
    index = edge(tmp_path)
    try:
        assert {each.fields["at"] for each in index.scan()} == set(range(50)) - {3}
        assert index.positions() == {("products", 0): 50}
    finally:
        index.close()


def test_an_index_of_another_format_is_refused(tmp_path, monkeypatch):
    edge(tmp_path).close()
    monkeypatch.setattr("connectors.vectors.about.FORMAT", 99)
    with pytest.raises(WrongFormatError, match=f"has format {FORMAT}, wanted is 99"):
        edge(tmp_path)


def test_an_encoder_without_a_version_takes_each_of_its_versions_and_no_other_encoder():
    graph = Encoding("graph-fastrp-128", 128)
    assert graph.accepts("graph-fastrp-128@a1.42")
    assert graph.accepts("graph-fastrp-128@b2.42")
    assert not graph.accepts("graph-fastrp-1280@a1.42")
    assert Encoding("text@1", 8).accepts("text@1")
    assert not Encoding("text@1", 8).accepts("text@2")


def test_a_damaged_folder_says_how_it_is_made_again(tmp_path):
    edge(tmp_path).close()
    (state,) = (tmp_path / "index").rglob("segment.json")
    state.write_bytes(state.read_bytes()[:20])
    with pytest.raises(IndexDamagedError) as caught:
        edge(tmp_path)
    assert "index rebuild" in caught.value.remedy


def test_a_folder_has_one_owner_and_keeps_the_version_that_counts(tmp_path):
    first, second = IndexFolder(tmp_path), IndexFolder(tmp_path)
    assert first.current() is None
    first.own()
    with pytest.raises(IndexBusyError, match="belongs to process"):
        second.own()
    old, new = first.fresh(), first.fresh()
    for each in (old, new):
        each.mkdir()
    first.swap(old)
    first.swap(new)
    assert second.current() == new
    first.release()
    second.own()

    def away(version):
        raise IndexUnavailableError(str(version))

    second.tidy(away)  # what is on a server that is away is removed another time
    assert old.exists()
    forgotten = []
    second.tidy(forgotten.append)
    assert forgotten == [old]
    assert new.exists()
    assert not old.exists()
    second.release()
    assert uuid.UUID(name(1)).hex == name(1)


def test_a_condition_means_the_same_here_and_in_the_index(tmp_path):
    index, rng, stored = edge(tmp_path), np.random.default_rng(3), vectors(300)
    words = ["a", "b", "", "True", "1"]

    def some(values):
        return [values[at] for at in rng.integers(0, len(values), rng.integers(1, 3))]

    def held():
        kinds = (*words, None, [], some(words))
        prices = (1, 2.5, -3, 0, None, [1, 9.5])
        return {"kind": kinds[rng.integers(len(kinds))], "price": prices[rng.integers(len(prices))]}

    index.put([Entry(name(at), held() | {"at": at}, {"text": each}) for at, each in enumerate(stored)])
    entries = list(index.scan())
    bounds = (None, -3, 0, 1, 2.5, 9)
    for _ in range(60):
        low, high = (bounds[rng.integers(len(bounds))] for _ in range(2))
        one = (
            AnyOf("kind", some(words)),
            AnyOf("price", some([1, 0, 2])),
            Between("price", low, high),
            OwnOrNone("kind", (*words, None)[rng.integers(6)]),
        )[rng.integers(4)]
        wanted = {each.id for each in entries if one.met(each.fields)}
        assert {each.id for each in index.scan([one])} == wanted, one
        assert {each.id for each in index.near("text", stored[0], 300, [one])} == wanted, one
