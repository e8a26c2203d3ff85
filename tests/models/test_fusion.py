"""Fused vectors: the cosine is the weighted mean of the parts', and every name says what it is of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.fusion import Fusion, Part, fused_name

DIMENSIONS = {"text": 6, "graph": 4, "image": 5}


def fusion(**weights: float) -> Fusion:
    return Fusion(tuple(Part(kind, f"{kind}@1", DIMENSIONS[kind], weight) for kind, weight in weights.items()))


def unit(rng: np.random.Generator, kind: str) -> np.ndarray:
    vector = rng.standard_normal(DIMENSIONS[kind]).astype(np.float32)
    return vector / np.linalg.norm(vector)


@given(
    st.integers(0, 2**32 - 1),
    st.dictionaries(st.sampled_from(["graph", "image"]), st.floats(0.1, 20), min_size=1),
    st.floats(0.1, 20),
)
def test_the_cosine_is_the_weighted_mean_of_the_cosines(seed, others, text):
    weights = {"text": text, **others}
    rng, fused = np.random.default_rng(seed), fusion(**weights)
    one, other = ({kind: unit(rng, kind) for kind in weights} for _ in range(2))
    first, second = (fused.fuse({kind: [each[kind]] for kind in weights}) for each in (one, other))
    wanted = sum(weights[kind] * float(one[kind] @ other[kind]) for kind in weights) / sum(weights.values())
    assert float(first @ second) == pytest.approx(wanted, abs=1e-5)
    assert first.shape == (fused.dimension,)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)


def test_a_missing_part_compares_nothing_and_a_missing_text_gives_no_vector():
    rng, fused = np.random.default_rng(1), fusion(text=1.0, graph=3.0)
    text, graph = unit(rng, "text"), unit(rng, "graph")
    whole, part = fused.fuse({"text": [text], "graph": [graph]}), fused.fuse({"text": [text]})
    assert not part[DIMENSIONS["text"] :].any()
    assert float(whole @ part) == pytest.approx(0.5, abs=1e-6)  # the text's root weight, of a length of 2
    assert fused.fuse({"graph": [graph]}) is None
    assert fused.fuse({"text": [text, -text], "graph": [graph]}) is None  # its middle has no direction


def test_chunks_of_a_text_count_by_their_middle():
    rng, fused = np.random.default_rng(2), fusion(text=1.0, graph=1.0)
    chunks, graph = [unit(rng, "text") for _ in range(3)], unit(rng, "graph")
    mean = np.mean(chunks, axis=0)
    wanted = fused.fuse({"text": [mean / np.linalg.norm(mean)], "graph": [graph]})
    assert fused.fuse({"text": chunks, "graph": [graph]}) == pytest.approx(wanted, abs=1e-6)


def test_the_name_changes_with_everything_that_decides_a_vector():
    base = fusion(text=1.0, graph=8.0)
    text, graph = base.parts
    others = [
        Fusion((Part("text", "text@2", 6, 1.0), graph)),
        Fusion((text, Part("graph", "graph@1", 4, 7.0))),
        Fusion((graph, text)),
        Fusion((text,)),
    ]
    assert base.encoder.startswith(f"{fused_name(10)}@")
    assert len({base.encoder, *(each.encoder for each in others)}) == 5
    assert fusion(text=1.0, graph=8.0).encoder == base.encoder


def test_a_mark_is_of_the_parts_and_of_the_space():
    fused = fusion(text=1.0, graph=8.0)
    mark = fused.mark([("text", "a"), ("graph", "b")])
    assert mark == fused.mark([("text", "a"), ("graph", "b")])
    marks = {
        mark,
        fused.mark([("text", "b"), ("graph", "b")]),
        fused.mark([("text", "a")]),
        fused.mark([("text", "a"), ("text", "b")]),
        fusion(text=1.0, graph=7.0).mark([("text", "a"), ("graph", "b")]),
    }
    assert len(marks) == 5
    assert fused.mark([("graph", "b")]) is None
