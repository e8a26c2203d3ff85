"""The models of tone: learnt from corrections, judged against the examples, read by the chat agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.lifecycle import Lifecycle, decision
from models.text import packaged_encoder
from models.text.tone import TONES
from models.training.ridge import ridge
from streams.agents.heads import SENTIMENT, URGENCY, Heads, ToneHead
from streams.agents.reading import Reader
from tests.models.chats import START, write_tones
from tests.models.served import Made, made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    found = {}
    for tone in TONES:
        root = tmp_path_factory.mktemp(tone)
        write_tones(root / "lake", tone)
        found[tone] = made(f"chat_{tone}", root / "lake", root)
    return found


def promoted(**models: Made) -> Lifecycle:
    """Return a registry in which these are champions."""
    registry = Lifecycle()
    at = 0
    for name, each in models.items():
        for stage in ("registered", "champion"):
            record = decision(
                registry.state(name), each.version, stage, "x", cause=f"{name}{stage}", event_time=START,
                reason="gates", artifact=str(Path(each.folder)), sha256=each.sha256,
            )  # fmt: skip
            assert not registry.apply(record, at).void
            at += 1
    return registry


def test_corrections_beat_the_examples(trained: dict[str, Made]) -> None:
    for each in trained.values():
        assert each.metrics["mae"] < 0.2 < each.baseline["mae"]


def test_the_agent_reads_each_tone_with_its_champion(trained: dict[str, Made]) -> None:
    encoder = packaged_encoder()
    tones = {"sentiment": Heads(SENTIMENT, ToneHead, encoder), "urgency": Heads(URGENCY, ToneHead, encoder)}
    reader = Reader(encoder, tones={name: each.current for name, each in tones.items()})
    texts = ["4711 DOA, third time", "AOG for 88", "99 for the annual review"]
    before, examples = reader.read(texts), reader.version
    registry = promoted(chat_sentiment=trained["sentiment"])
    assert tones["sentiment"].refresh(registry)
    assert not tones["urgency"].refresh(registry)
    after = reader.read(texts)
    assert after[0].sentiment < -0.7 < before[0].sentiment
    assert [each.urgency for each in after] == pytest.approx([each.urgency for each in before], abs=1e-5)
    assert reader.version == f"{examples}+{trained['sentiment'].version}"
    assert tones["urgency"].refresh(promoted(chat_urgency=trained["urgency"]))
    both = reader.read(texts)
    assert both[1].urgency > 0.7
    assert both[2].urgency < 0.3
    named = [f"chat_{tone}@{trained[tone].version}" for tone in TONES]
    assert reader.reads_with == "+".join([encoder.identity, *named])
    assert [each.intent for each in both] == [each.intent for each in before]


def test_a_value_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)).astype(np.float32)
    y = np.clip(x[:, 0], 0.0, 1.0).astype(np.float64)
    found = ridge(x, y, np.ones(80), np.arange(80) >= 60, (0.0, 1.0))
    answers = found.predict(x * 100)
    assert answers.min() == 0.0
    assert answers.max() == 1.0
    assert np.abs(found.predict(x)[:, 0] - y).mean() < 0.25
