"""The folder of an exported encoder, and the gate before it, on a model whose arithmetic is three lines."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.encoding import EncoderError, EncoderFolder, TextPart
from models.export.cosines import lowest_cosines
from models.export.parity import ParityError
from models.text import OnnxTextEncoder, TextSettings, text_encoder

WORDS = ["[PAD]", "[UNK]", "q:", "brake", "pads", "for", "paint", "tin"]
TABLE = np.random.default_rng(3).standard_normal((len(WORDS), 6)).astype(np.float32)
TEXTS = ["brake pads", "Tin for  paint", "unknown", "paint " * 50, "brake"]


def expected(text: str, *, words: int = 8) -> np.ndarray:
    """The mean of the words' rows, of length 1: computed apart from ONNX and the tokenizer."""
    ids = [WORDS.index(each) if each in WORDS else 1 for each in ["q:", *text.lower().split()][:words]]
    mean = TABLE[ids].mean(axis=0)
    return mean / np.linalg.norm(mean)


def write_model(file: Path, *, masked: bool = True) -> None:
    """Rows of a table, averaged; unmasked, the padding is averaged with them."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    nodes += [helper.make_node("Cast", ["attention_mask"], ["ones"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Unsqueeze", ["ones", "two"], ["weights"])]
    used = "weights"
    if not masked:
        nodes += [
            helper.make_node("Abs", ["weights"], ["some"]),
            helper.make_node("Add", ["some", "one"], ["all"]),
        ]
        nodes += [helper.make_node("Div", ["all", "all"], ["every"])]
        used = "every"
    nodes += [helper.make_node("Mul", ["rows", used], ["kept"])]
    nodes += [helper.make_node("ReduceSum", ["kept", "axis"], ["vector"], keepdims=0)]
    given = [("input_ids", ["n", "t"]), ("attention_mask", ["n", "t"])]
    graph = helper.make_graph(
        nodes, "words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in given],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 6])],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array([2]), "two"),
            numpy_helper.from_array(np.array([1]), "axis"),
            numpy_helper.from_array(np.array([1], np.float32), "one"),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def make(root: Path, name: str = "words", *, masked: bool = True, **part) -> tuple[EncoderFolder, Path]:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = root / ".made"
    made.mkdir()
    write_model(made / "text.onnx", masked=masked)
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(made / "tokenizer.json"))
    text = TextPart(max_tokens=8, lower=True, prefix="q: ", **part)
    return EncoderFolder(name=name, dimension=6, text=text).save(made, root / name), root / name


def test_the_folder_of_the_settings_encodes_as_it_says(tmp_path):
    told, folder = make(tmp_path)
    encoder = text_encoder(TextSettings(model=folder))
    assert encoder.identity == f"words@{told.version}"
    assert (encoder.dimension, encoder.max_tokens) == (6, 8)
    found = encoder.encode(TEXTS)
    assert np.allclose(found, [expected(each) for each in TEXTS], atol=1e-6)
    fewer = text_encoder(TextSettings(model=folder / "encoder.json", max_tokens=8, batch_size=1))
    assert np.allclose(fewer.encode(TEXTS), found, atol=1e-6)


def test_what_decides_a_vector_decides_the_version(tmp_path):
    first, folder = make(tmp_path)
    again, _ = make(tmp_path)  # the same again is left as it is
    assert again == first
    assert not (tmp_path / ".made").exists()
    with pytest.raises(EncoderError, match="holds something else"):
        make(tmp_path, padding=1)
    assert EncoderFolder.read(folder) == first


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    _, folder = make(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(EncoderError, match=rf"{name} .* is not the file that encoder.json describes"):
        text_encoder(TextSettings(model=folder))
    (folder / name).unlink()
    with pytest.raises(EncoderError, match="cannot be read: No such file"):
        text_encoder(TextSettings(model=folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 9}, "has format 9, and this release reads 1"),
        ({"name": "other"}, None),
        ({"text": {"max_tokens": 4}}, "its version is of another description"),
        ({"dimension": 0}, "dimension: Input should be greater"),
        ({"text": None}, "version is of another description"),
        ({"files": {"../evil": "0"}}, "files.../evil"),
    ],
)
def test_a_changed_description_is_refused(tmp_path, change, said):
    _, folder = make(tmp_path)
    file = folder / "encoder.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    if said is None:  # a name is free
        assert text_encoder(TextSettings(model=folder)).name == "other"
        return
    with pytest.raises(EncoderError) as failure:
        text_encoder(TextSettings(model=folder))
    assert said in str(failure.value)
    assert "encoders export" in failure.value.remedy


def test_the_gate_lets_an_export_through_that_answers_as_its_source(tmp_path):
    _, folder = make(tmp_path)
    ours = OnnxTextEncoder.of_folder(folder)
    found = lowest_cosines("texts", ours, lambda some: np.array([expected(each) for each in some]), TEXTS)
    assert set(found) == {"texts batch", "texts alone"}
    assert min(found.values()) > 0.99999


def test_the_gate_refuses_what_padding_changes(tmp_path):
    _, folder = make(tmp_path, masked=False)
    ours = OnnxTextEncoder.of_folder(folder)

    def source(some):
        return np.array([expected(each) for each in some])

    assert np.allclose(ours.encode(["brake"]), [expected("brake")], atol=1e-6)  # alone nothing shows
    with pytest.raises(ParityError, match=r"texts: cosine -?0\.\d+ to the source model at input \d \(batch\)"):
        lowest_cosines("texts", ours, source, TEXTS)
    with pytest.raises(ParityError, match="vectors of 6 numbers, the source of 5"):
        lowest_cosines("texts", ours, lambda some: source(some)[:, :5], TEXTS)
