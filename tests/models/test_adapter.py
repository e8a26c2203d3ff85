"""The map between two encoders, the budget of one, and the homes that they live in."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.vectors.folder import IndexFolder
from models.embedding.topics import FIRST, SECOND, Homes
from models.search.adapter import AdapterError, VectorMap
from models.text import Encoder
from models.text.paced import PacedEncoder


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_a_map_ranks_old_vectors_as_the_new_encoder_would(tmp_path) -> None:
    """The old encoder sees the new one's vectors turned, shortened and blurred."""
    rng = np.random.default_rng(1)
    new = unit(rng.normal(size=(1_500, 24)) * np.linspace(3, 0.2, 24))
    old = unit(new @ rng.normal(size=(24, 16)) + 0.02 * rng.normal(size=(1_500, 16)))
    known = np.arange(1_500) < 500
    found = VectorMap.fitted("old@1", "new@1", old[known], new[known])
    found.save(tmp_path / "map.npz")
    found = VectorMap.load(tmp_path / "map.npz")
    assert (found.old, found.new) == ("old@1", "new@1")
    overlaps = []
    for query in new[-40:]:
        best = np.argsort(-found.scores(query, old[~known]))[:10]
        overlaps.append(len({*best.tolist()} & {*np.argsort(-(new[~known] @ query))[:10].tolist()}) / 10)
    assert np.mean(overlaps) > 0.5  # by chance one in a hundred
    assert np.linalg.norm(found.query(new[0])) == pytest.approx(1, abs=1e-5)


def test_too_few_texts_or_another_file_are_refused(tmp_path) -> None:
    few = np.eye(20, dtype=np.float32)
    with pytest.raises(AdapterError, match="20 texts"):
        VectorMap.fitted("old@1", "new@1", few, few)
    (tmp_path / "map.npz").write_bytes(b"no map")
    with pytest.raises(AdapterError, match="no map"):
        VectorMap.load(tmp_path / "map.npz")


class Told(Encoder):
    """Remembers what it is given, and when."""

    name, version, dimension, max_tokens = "told", "1", 2, 9

    def __init__(self, clock):
        self.clock, self.given = clock, []

    def encode(self, batch):
        self.given.append((self.clock(), len(batch)))
        return np.array([[len(text), 1.0] for text in batch], np.float32)


def test_a_budget_is_kept_and_nothing_is_left_out() -> None:
    now = [0.0]

    class Waited:
        def wait(self, seconds):
            now[0] += seconds
            return False

    inner = Told(lambda: now[0])
    paced = PacedEncoder(inner, 60, Waited(), clock=lambda: now[0])
    texts = [str(10**at) for at in range(7)]
    assert paced.encode(texts)[:, 0].tolist() == [len(text) for text in texts]
    paced.encode(["a"])
    assert inner.given == [(0.0, 2), (2.0, 2), (4.0, 2), (6.0, 1), (7.0, 1)]
    assert paced.encode([]).shape == (0, 2)


class Hash:
    """The two commands of a Redis hash that are used."""

    def __init__(self):
        self.held = {}

    def hgetall(self, key):
        return dict(self.held)

    def hget(self, key, name):
        return self.held.get(name.encode())

    def hset(self, key, name=None, value=None, mapping=None):
        for field, each in (mapping or {name: value}).items():
            self.held[field.encode()] = each.encode()


def test_an_encoder_keeps_its_home_and_the_next_one_moves_into_the_other() -> None:
    homes = Homes(Hash())
    assert homes.settle("one@1") == FIRST
    assert homes.settle_beside("two@1") == SECOND
    assert homes.settle("one@1") == FIRST  # both restart
    assert homes.settle_beside("two@1") == SECOND
    assert homes.settle("two@1") == SECOND  # it is the one of [text] now
    assert homes.settle_beside("three@1") == FIRST
    assert homes.of("one@1") is None
    assert Homes(Hash()).settle_beside("two@1") == SECOND  # before the first has settled


def test_the_version_before_is_kept_until_another_is_adopted(tmp_path) -> None:
    folder = IndexFolder(tmp_path)

    def made(about, keep):
        with folder.building() as beside:
            beside.mkdir()
            (beside / "who").write_text(about)
            folder.adopt(beside, keep=keep, about=about)

    made("one", False)
    assert folder.go_back() is None
    made("two", True)
    folder.tidy()
    assert [folder.about(each) for each in folder.versions()] == ["one", "two"]
    back = folder.go_back()
    assert back == folder.current()
    folder.tidy()
    assert [(back / "who").read_text(), folder.about(folder.previous())] == ["one", "two"]
    assert (folder.go_back() / "who").read_text() == "two"
    made("three", True)
    folder.tidy()
    assert [folder.about(each) for each in folder.versions()] == ["two", "three"]
    made("three", True)  # the step again: the way back stays
    folder.tidy()
    assert [folder.about(each) for each in folder.versions()] == ["two", "three"]
    assert folder.about(folder.previous()) == "two"
    assert len(list(tmp_path.glob("about-*"))) == 2
