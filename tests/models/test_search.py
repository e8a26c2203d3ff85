"""Search over a small index with the packaged encoder: what is found, and what is refused."""

import base64
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from connectors.vectors import AnyOf, Between, Encoding, Entry
from connectors.vectors.edge import EdgeIndex
from connectors.vectors.lexical import Lexical
from models.embedding import Owner, split
from models.encoding import EncoderFolder, Picture
from models.image import image_encoder
from models.search.fields import CHUNK, FIELDS, KEYWORDS, NUMBERS, SearchRequestError, conditions, fields_of
from models.search.likeness import NothingLikeItError
from models.search.request import SearchRequest
from models.search.searcher import Searcher, fuse
from models.search.vocabulary import Vocabulary
from models.search.weights import Weights
from models.settings import ImageSettings
from models.text import packaged_encoder
from schemas.ids import event_id

PRODUCTS = [
    {"product_id": "1", "name": "Whole milk 1 gal", "category": "DAIRY", "price": 3.0},
    {"product_id": "2", "name": "Almond drink, unsweetened", "category": "DAIRY", "price": 4.5},
    {"product_id": "3", "name": "Cordless chainsaw", "category": "TOOLS", "price": 199.0},
    {"product_id": "4", "name": "Hand saw for wood", "category": "TOOLS", "price": 19.0},
    {"product_id": "5", "name": "Birthday candles", "category": "PARTY", "price": 2.0},
    {"product_id": "6", "name": "Pruning shears", "category": "GARDEN", "price": 25.0},
]
MANUAL = "# Chain\n\nTighten the chain of the saw before each use.\n\n# Oil\n\nFill the tank with bar oil."
DOCUMENTS = [
    {"document_id": "7", "title": "Chainsaw manual", "text": MANUAL, "kind": "manual", "dealer_id": None},
    {
        "document_id": "8",
        "title": "Rebates",
        "text": "Forty percent for chainsaws.",
        "kind": "note",
        "dealer_id": "d1",
    },
]


GRAPH = [
    ("product/3", "a", (1.0, 0.0), "true"),
    ("product/5", "a", (0.9, 0.1), "true"),
    ("product/1", "a", (0.0, 1.0), "true"),
    ("product/9", "a", (1.0, 0.01), "false"),
    ("product/2", "b", (1.0, 0.0), "true"),
    ("dealer/x", "a", (0.99, 0.02), "true"),
    ("dealer/y", "a", (0.7, 0.7), "true"),
    ("dealer/z", "a", (0.0, 1.0), "true"),
]
"""Owner, version of the encoder, vector, and whether it may be found."""


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    encoder, lexical, vocabulary = packaged_encoder(), Lexical(), Vocabulary()
    folder = tmp_path_factory.mktemp("index") / "v"
    kinds = {"text": Encoding(encoder.identity, encoder.dimension), "graph": Encoding("graph-test", 2)}
    index = EdgeIndex(folder, kinds, KEYWORDS, NUMBERS)
    for topic, kind, records in (("products", "product", PRODUCTS), ("documents", "document", DOCUMENTS)):
        for record in records:
            owner = Owner(kind, record[f"{kind}_id"])
            chunks = split(topic, owner.id, record | {"deleted": False})
            vectors = encoder.encode([each.text for each in chunks])
            for chunk, vector in zip(chunks, vectors, strict=True):
                fields = {
                    "entry": CHUNK, "owner": str(owner), "type": kind, "subject_id": owner.id, "live": "true",
                    "text": chunk.text, "chunk": chunk.number, "start": chunk.start, "end": chunk.end,
                } | fields_of(kind, record)  # fmt: skip
                index.put([Entry(chunk.id, fields, {"text": vector}, lexical.document(chunk.text))])
                vocabulary.add(chunk.text)
    for owner, space, vector, live in GRAPH:
        kind, _, identity = owner.partition("/")
        given = next((each for each in PRODUCTS if f"product/{each['product_id']}" == owner), {})
        fields = {
            "entry": "graph", "owner": owner, "type": kind, "subject_id": identity, "live": live, "offset": 1,
            "encoder": f"graph-test@{space}",
        } | (fields_of(kind, given) if given else {})  # fmt: skip
        index.put([Entry(event_id("graph", owner), fields, {"graph": np.array(vector, np.float32)})])
    yield Searcher(index, encoder, vocabulary)
    index.close()


def ids(answer):
    return [f"{each.type}/{each.id}" for each in answer.hits]


def test_a_search_finds_by_meaning_what_shares_no_word(searcher):
    answer = searcher.search(SearchRequest(text="something to cut the hedge"))
    assert answer.hits[0].id == "6"
    assert "words" not in answer.hits[0].why
    assert answer.hits[0].why["meaning"].rank == 1


def test_words_find_what_meaning_ranks_low_and_both_are_told(searcher):
    (hit, *_) = searcher.search(SearchRequest(text="unsweetened almond")).hits
    assert (hit.type, hit.id) == ("product", "2")
    assert hit.why["words"].rank == 1
    assert {hit.text[start:end].lower() for start, end in hit.highlights} == {"unsweetened", "almond"}
    shown = {"product_id": "2", "name": "Almond drink, unsweetened", "category": "DAIRY", "price": 4.5}
    assert hit.fields == shown


def test_a_document_is_one_hit_and_says_where(searcher):
    answer = searcher.search(SearchRequest(text="bar oil tank", filters={"type": "document"}))
    assert ids(answer) == ["document/7"]
    hit = answer.hits[0]
    assert MANUAL[hit.start : hit.end] == "Fill the tank with bar oil."


def test_one_dealers_document_is_nobody_elses(searcher):
    request = {"text": "forty percent rebates", "filters": {"type": "document"}}
    assert "document/8" not in ids(searcher.search(SearchRequest(**request)))
    assert "document/8" not in ids(searcher.search(SearchRequest(**request, dealer_id="d2")))
    assert ids(searcher.search(SearchRequest(**request, dealer_id="d1")))[0] == "document/8"


def test_filters_hold_for_every_hit(searcher):
    answer = searcher.search(SearchRequest(text="saw", filters={"category": ["TOOLS"], "price": {"lte": 50}}))
    assert ids(answer) == ["product/4"]
    assert ids(searcher.search(SearchRequest(text="saw", filters={"category": "NONE"}))) == []


def test_what_is_like_a_thing_leaves_it_out_and_goes_with_a_text(searcher):
    alone = searcher.search(SearchRequest(like="product/3", kinds=["text"], filters={"type": "product"}))
    assert ids(alone)[0] == "product/4"
    assert "product/3" not in ids(alone)
    both = searcher.search(SearchRequest(text="milk", like="product/3", limit=3))
    assert {"product/1"} & set(ids(both))
    with pytest.raises(NothingLikeItError, match="nothing in the index is called product/99"):
        searcher.search(SearchRequest(like="product/99"))


def test_what_is_like_a_product_is_found_by_each_kind_of_vector_that_it_has(searcher):
    answer = searcher.search(SearchRequest(like="product/3"))
    assert answer.kinds == ["text", "graph"]
    why = {f"{each.type}/{each.id}": each.why for each in answer.hits}
    assert why["product/4"].keys() == {"like-text"}
    assert why["product/5"].keys() == {"like-text", "like-graph"}
    assert why["product/5"]["like-graph"].rank == 1
    assert why["product/5"]["like-graph"].score == pytest.approx(0.9 / np.hypot(0.9, 0.1), abs=1e-3)
    assert why["product/1"]["like-graph"].rank == 2
    # What has no graph vector of its own is found by its text alone, and so is what is in another space.
    assert {name for name, each in why.items() if "like-graph" in each} == {"product/5", "product/1"}
    assert "product/9" not in why  # it is deleted
    assert searcher.search(SearchRequest(like="product/4")).kinds == ["text"]


def test_kinds_are_chosen_and_what_has_no_chunk_shows_its_text_all_the_same(searcher):
    answer = searcher.search(SearchRequest(like="product/3", kinds=["graph"]))
    assert ids(answer) == ["product/5", "product/1"]
    assert answer.hits[0].text.startswith("Birthday candles")
    assert answer.hits[0].fields["price"] == 2.0
    assert answer.hits[0].fields.keys() == {"product_id", "name", "category", "price"}
    filtered = SearchRequest(like="product/3", kinds=["graph"], filters={"category": "DAIRY"})
    assert ids(searcher.search(filtered)) == ["product/1"]
    text = searcher.search(SearchRequest(like="product/3", kinds=["text"]))
    assert all(each.why.keys() == {"like-text"} for each in text.hits)
    both = searcher.search(SearchRequest(text="candles", like="product/3", filters={"type": "product"}))
    assert both.hits[0].id == "5"
    assert both.hits[0].why.keys() == {"meaning", "words", "like-text", "like-graph"}


def test_dealers_are_found_as_the_like_of_a_dealer_and_never_among_products(searcher):
    assert ids(searcher.search(SearchRequest(like="dealer/x"))) == ["dealer/y", "dealer/z"]
    assert not any("dealer" in each for each in ids(searcher.search(SearchRequest(like="product/3"))))
    asked = SearchRequest(like="product/3", kinds=["graph"], filters={"type": "dealer"})
    (hit, *_) = searcher.search(asked).hits
    assert (hit.type, hit.id, hit.text) == ("dealer", "x", "x")


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"text": "saw", "kinds": ["image"]}, "holds no vectors of kind image"),
        ({"text": "saw", "kinds": ["graph"]}, "a text has no vector of kind graph"),
        (
            {"like": "product/4", "kinds": ["graph"]},
            "product/4 has no vector of kind graph, only of text",
        ),
        ({"like": "product/4", "kinds": []}, "kinds is empty"),
        ({"like": "product/4", "kinds": [3]}, "kinds holds what is no text"),
        ({"like": "product/4", "kinds": "graph"}, "kinds is of type str"),
    ],
)
def test_kinds_that_cannot_be_searched_with_are_refused(searcher, request_, told):
    with pytest.raises(SearchRequestError, match=told) as caught:
        searcher.search(SearchRequest.of(request_))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("chiansaw", "chainsaw"),
        ("almnd", "almond"),
        ("chainsaws", None),
        ("chainsaw", None),
        ("saw", None),
        ("xylophone", None),
        ("birthdya", "birthday"),
        ("a1b2c3", None),
    ],
)
def test_misspelt_words_are_mended_and_others_left(searcher, word, meant):
    answer = searcher.search(SearchRequest(text=f"{word} wood"))
    assert answer.corrected == ({} if meant is None else {word: meant})
    assert searcher.search(SearchRequest(text=f"{word} wood", correct=False)).corrected == {}


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE products; --",
        "milk\x00\x07\x1b[31m",
        "n" * 1_999,
        "MATCH (n) DETACH DELETE n //",
        "größe 牛乳",
    ],
)
def test_an_odd_query_is_a_text_like_any_other(searcher, text):
    answer = searcher.search(SearchRequest(text=text, limit=3))
    assert len(answer.hits) == 3
    json.dumps(answer.data())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "needs text or like"),
        ({"text": ""}, "needs text or like"),
        ({"text": "x" * 2_001}, "text has 2001 characters"),
        ({"text": "a", "limit": 0}, "limit is 0"),
        ({"text": "a", "limit": True}, "limit is of type bool"),
        ({"text": 5}, "text is of type int"),
        ({"text": "a", "filter": {}}, "unknown member 'filter'"),
        ({"like": "3"}, "like is '3'"),
        ([], "the body is list"),
        ({"text": "?!"}, "no letter and no digit"),
        ({"text": "a", "filters": {"colour": "red"}}, "no field is called 'colour'"),
        ({"text": "a", "filters": {"price": "cheap"}}, "price is 'cheap'"),
        ({"text": "a", "filters": {"price": {"below": 3}}}, "price is {'below': 3}"),
        ({"text": "a", "filters": {"category": []}}, "category is []"),
        ({"text": "a", "filters": {"category": 3}}, "category is 3"),
    ],
)
def test_a_search_that_cannot_be_made_says_why_and_what_there_is(searcher, body, told):
    with pytest.raises(SearchRequestError) as caught:
        searcher.search(SearchRequest.of(body))
    assert told in str(caught.value)
    assert caught.value.remedy


def test_conditions_are_read_from_texts_too():
    assert conditions({"price": {"gte": "1", "lte": "2.5"}}) == [Between("price", 1.0, 2.5)]
    assert conditions({"price": 3}) == [Between("price", 3.0, 3.0)]
    assert conditions({"brand": ["a", "b"]}) == [AnyOf("brand", ["a", "b"])]
    with pytest.raises(SearchRequestError) as caught:
        conditions({"categry": "x"})
    assert "did you mean category" in caught.value.remedy
    assert set(FIELDS) <= {*KEYWORDS, *NUMBERS}


def test_ranks_are_fused_as_the_paper_has_it():
    scores = fuse({"meaning": ["a", "b", "c"], "words": ["c", "a"]})
    assert list(scores) == ["a", "c", "b"]
    assert scores["a"] == pytest.approx(1 / 61 + 1 / 62)
    assert scores["c"] == pytest.approx(1 / 63 + 1 / 61)


def test_what_has_some_words_of_a_query_counts_by_the_square_of_their_share(searcher):
    assert fuse({"a": ["x"], "b": ["x"]}, {"b": {"x": 0.25}})["x"] == pytest.approx(1.25 / 61)
    answer = searcher.search(SearchRequest(text="saw for wood", limit=20))
    shares = {}
    for hit in answer.hits:
        said = {stem for stem in ("saw", "wood") if stem in hit.text.lower().replace("chainsaw", "")}
        ranks = {name: 1 / (60 + why.rank) for name, why in hit.why.items()}
        share = shares[hit.id] = (len(said) / 2) ** 2
        assert hit.score == pytest.approx(ranks.get("meaning", 0.0) + share * ranks.get("words", 0.0))
        assert bool(said) == ("words" in ranks)
    assert shares["4"] == 1.0
    assert 0.25 in shares.values()


def test_neither_the_agent_nor_the_search_process_loads_a_training_package():
    code = (
        "import sys, streams.agents.embed, dealeriq.search.process, dealeriq.http.forward;"
        "print([m for m in ('torch','feast','mlflow','pandas','pyflink','faust') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_feedback_moves_hits_of_its_search_alone_and_the_hit_says_so(searcher):
    weights = Weights(holdout=0.0)
    asking = Searcher(searcher.index, searcher.encoder, searcher._vocabulary, weights)
    before = asking.search(SearchRequest(text="milk for birthdays"))
    first, second = before.hits[:2]
    assert {hit.weight for hit in before.hits} == {1.0}
    for number in range(30):
        weights.fold(
            {
                "subject_type": "search", "subject_id": second.feedback_id, "dealer_id": f"d{number}",
                "source": f"app{number}", "kind": "thumb", "value": 1.0, "comment": None,
                "event_time": 1_500_000_000_000,
            }
        )  # fmt: skip
    after = asking.search(SearchRequest(text="Birthday, milks for"))
    assert after.hits[0].id == second.id
    assert after.hits[0].weight == pytest.approx(1 + 0.3 * 30 / 40)
    assert {hit.weight for hit in after.hits[1:]} == {1.0}
    other = asking.search(SearchRequest(text="pruning"))
    assert {hit.weight for hit in other.hits} == {1.0}
    out = Searcher(searcher.index, searcher.encoder, searcher._vocabulary, Weights(holdout=1.0))
    held = out.search(SearchRequest(text="milk for birthdays"))
    assert held.held_out
    assert [hit.id for hit in held.hits] == [hit.id for hit in before.hits]
    assert first.id in {hit.id for hit in after.hits}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """Search over pictures by their mean colour: an encoder whose vectors anyone can compute."""
    folder = tmp_path_factory.mktemp("pictures")
    made = folder / ".made"
    made.mkdir()
    node = helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [node],
        "colour",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (made / "image.onnx").write_bytes(model.SerializeToString())
    part = Picture(width=8, height=8, mean=(0, 0, 0), std=(1, 1, 1))
    EncoderFolder(name="colour", dimension=3, image=part).save(made, folder / "colour")
    images, encoder = image_encoder(ImageSettings(model=folder / "colour")), packaged_encoder()
    kinds = {"text": Encoding(encoder.identity, encoder.dimension), "image": Encoding(images.identity, 3)}
    index = EdgeIndex(folder / "v", kinds, KEYWORDS, NUMBERS)
    for identity, colour in (("red", (255, 0, 0)), ("olive", (128, 128, 0)), ("sky", (100, 180, 250))):
        (vector,) = images.encode([images.read(png(colour))])
        fields = {
            "entry": "image", "owner": f"product/{identity}", "type": "product", "subject_id": identity,
            "live": "true", "offset": 1,
        }  # fmt: skip
        index.put([Entry(event_id("image", identity), fields, {"image": vector})])
    yield Searcher(index, encoder, Vocabulary(), images=images)
    index.close()


def png(colour):
    out = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(out, "PNG")
    return out.getvalue()


def test_a_picture_finds_what_looks_like_it(pictured):
    body = {"image": base64.b64encode(png((240, 20, 10))).decode()}
    answer = pictured.search(SearchRequest.of(body))
    assert ids(answer) == ["product/red", "product/olive", "product/sky"]
    assert answer.kinds == ["image"]
    asked, red = np.array([240, 20, 10]), np.array([255, 0, 0])
    cosine = asked @ red / np.linalg.norm(asked) / np.linalg.norm(red)
    assert answer.hits[0].why["image"].score == pytest.approx(cosine, abs=1e-3)
    assert answer.hits[0].text == "red"
    alike = pictured.search(SearchRequest(like="product/red"))
    assert [each.why.keys() for each in alike.hits] == [{"like-image"}] * 2
    assert answer.hits[0].feedback_id != pictured.search(SearchRequest(like="product/sky")).hits[-1].feedback_id


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("no base64!", "the image is not base64"),
        (base64.b64encode(b"plain text").decode(), "the image is none of JPEG"),
        (base64.b64encode(png((1, 2, 3))[:40]).decode(), "the image is"),
    ],
)
def test_what_is_no_picture_is_refused(pictured, image, told):
    with pytest.raises(SearchRequestError, match=told) as caught:
        pictured.search(SearchRequest(image=image))
    assert caught.value.remedy


def test_a_picture_without_an_index_of_pictures_is_refused(searcher):
    with pytest.raises(SearchRequestError, match="searched for with the kind image"):
        searcher.search(SearchRequest(image="aGVsbG8="))
