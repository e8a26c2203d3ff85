"""A text finds pictures: products through both stages, the index and a search, with one encoder of both.

The encoder is a small one of two towers in one space, as CLIP is, made here: a text is the mean colour of its
words, a picture that of its pixels. So every score can be computed by hand.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from vector_world import Log, fetch, product

from connectors.images import ImageSource
from connectors.vectors.edge import EdgeIndex
from dealeriq.search.folder import images_of, kinds_of
from dealeriq.settings import load
from models.search.fields import KEYWORDS, NUMBERS
from models.search.request import SearchRequest
from models.search.searcher import Searcher
from models.search.vocabulary import Vocabulary
from models.text import text_encoder
from streams.agents.embed import EmbedStage
from streams.agents.embedded import Embedded
from streams.agents.images import ImageStage
from streams.agents.stage import Event
from streams.views.vector_view import VectorView

WORDS = {"red": (255, 0, 0), "green": (0, 160, 0), "sky": (90, 170, 250), "dark": (40, 40, 40)}
PICTURES = {"1": (230, 20, 10), "2": (10, 150, 20), "3": (100, 180, 250), "4": (120, 120, 120)}
NAMES = {"1": "Alpha", "2": "Beta", "3": "Gamma", "4": "Delta"}  # none of which is a colour


def write(node, inputs, shape, file, initializer=()):
    kind = TensorProto.INT64 if inputs[0][0] == "input_ids" else TensorProto.FLOAT
    graph = helper.make_graph(
        node,
        "tower",
        [helper.make_tensor_value_info(name, kind, size) for name, size in inputs],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, shape)],
        list(initializer),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from models.encoding import EncoderFolder, Picture, TextPart

    root = tmp_path_factory.mktemp("towers")
    made = root / ".made"
    made.mkdir()
    vocabulary = {"[UNK]": 0, "[PAD]": 1} | {word: at for at, word in enumerate(WORDS, 2)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(made / "tokenizer.json"))
    colours = np.array([(1, 1, 1), (0, 0, 0), *WORDS.values()], np.float32)
    write(
        [helper.make_node("Gather", ["colours", "input_ids"], ["vector"])],
        [("input_ids", ["n", "t"]), ("attention_mask", ["n", "t"])],
        ["n", "t", 3],
        made / "text.onnx",
        [numpy_helper.from_array(colours, "colours")],
    )
    write(
        [helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[2, 3], keepdims=0)],
        [("pixels", ["n", 3, 8, 8])],
        ["n", 3],
        made / "image.onnx",
    )
    image = Picture(width=8, height=8, mean=(0, 0, 0), std=(1, 1, 1))
    text = TextPart(max_tokens=16, padding=1, lower=True)
    EncoderFolder(name="towers", dimension=3, text=text, image=image).save(made, root / "towers")
    return root / "towers"


def derived(stage, records):
    """What the agent would send for products, as the topic has it."""
    events = [
        Event("products", 0, at, each["product_id"], each, each["event_time"], 100)
        for at, each in enumerate(records)
    ]
    outcomes = stage.derive(events)
    assert all(each.refused is None for each in outcomes)
    stage.after(events, outcomes)
    return [each for outcome in outcomes for each in outcome.derived]


def unit(colour):
    return np.array(colour, float) / np.linalg.norm(colour)


def test_a_text_finds_the_pictures_that_it_describes(folder, store, tmp_path):
    store.flushall()
    settings = load({"DEALERIQ_TEXT__MODEL": str(folder), "DEALERIQ_IMAGE__MODEL": str(folder)})
    settings.search.kinds = ["text", "image"]
    texts, images = text_encoder(settings.text), images_of(settings)
    assert texts.identity == images.identity
    records = []
    for identity, colour in PICTURES.items():
        Image.new("RGB", (20, 30), colour).save(tmp_path / f"{identity}.png")
        address = f"file://{tmp_path}/{identity}.png"
        records.append(product(identity, name=NAMES[identity], category="X", image_url=address))
    source = ImageSource(folder=tmp_path, hosts=(), most_bytes=100_000, timeout_s=5, patience_s=0)
    log = Log()
    for each in records:
        log.add("products", each["product_id"], each)
    for stage in (
        EmbedStage(texts, Embedded(store)),
        ImageStage(images, Embedded(store, "image"), source),
    ):
        for each in derived(stage, records):
            log.add("embeddings", each.key, each.record)
    index = EdgeIndex(tmp_path / "index", kinds_of(settings, texts, images), KEYWORDS, NUMBERS)
    try:
        view = VectorView(index, fetch)
        for messages in log.partitions.values():
            view.apply(messages)
        searcher = Searcher(index, texts, Vocabulary(), images=images)
        for asked in (("red",), ("green",), ("sky",), ("dark", "sky")):
            answer = searcher.search(SearchRequest(text=" ".join(asked), kinds=["image"], correct=False))
            wanted = np.mean([WORDS[each] for each in asked], axis=0)
            cosines = {each: float(unit(wanted) @ unit(colour)) for each, colour in PICTURES.items()}
            best = sorted(cosines, key=lambda each: -cosines[each])
            assert [hit.id for hit in answer.hits] == best
            for hit in answer.hits:
                assert hit.why.keys() == {"pictures"}
                assert hit.why["pictures"].score == pytest.approx(cosines[hit.id], abs=2e-3)
        both = searcher.search(SearchRequest(text="green", correct=False))
        assert both.kinds == ["text", "image"]
        first = next(hit for hit in both.hits if hit.why["pictures"].rank == 1)
        assert first.id == "2"
        assert "meaning" in first.why
    finally:
        index.close()
