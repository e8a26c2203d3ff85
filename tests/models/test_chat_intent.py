"""The model of intents: learnt from corrections, judged against the nearest example, read by the chat agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.plan import load
from models.lifecycle import Lifecycle
from models.specs import spec
from models.text import packaged_encoder
from models.training import run as training
from models.training.run import Job, Result
from models.training.sets import NotEnoughDataError, build
from models.training.softmax import bounded, softmax
from streams.agents.heads import INTENT, Heads, IntentHead
from streams.agents.reading import Reader
from tests.lake_tables import write_events
from tests.models.chats import START, write_carried_chats, write_jargon
from tests.models.served import Made, made


def train(lake: Path, folder: Path) -> Result:
    away = {"url": "http://127.0.0.1:9", "timeout_s": 1}
    return training.train(
        Job("chat_intent", str(lake), str(folder / "models"), str(folder), "request-chats", mlflow=away)
    )


def refusals(found: Result) -> list[str]:
    """The gates' reasons, but for the latency, which on a machine of tests is that of its other tests."""
    return [each for each in found.verdict["reasons"] if "p99" not in each]


@pytest.fixture(scope="module")
def jargon(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("jargon")
    write_jargon(root / "lake")
    return made("chat_intent", root / "lake", root)


def step(registry: Lifecycle, found: Made, stage: str, at: int, **more: Any) -> None:
    record = {
        "event_id": f"{found.version}-{stage}-{at}", "model": "chat_intent", "model_version": found.version,
        "stage": stage, "artifact": found.folder, "text": "", "metrics": {}, "reason": "tests",
        "after": registry.state("chat_intent").position, "share": 0.0, "run_id": "", "sha256": found.sha256,
        "cause_id": "c", "event_time": START,
    } | more  # fmt: skip
    assert not registry.apply(record, at).void


def test_corrections_beat_the_nearest_example(jargon: Made) -> None:
    assert jargon.metrics["accuracy"] > 0.9 > jargon.baseline["accuracy"]


def test_the_agent_reads_with_the_champion_and_goes_back(jargon: Made) -> None:
    encoder, registry = packaged_encoder(), Lifecycle()
    heads = Heads(INTENT, IntentHead, encoder)
    reader = Reader(encoder, head=heads.current)
    text = "RMA no. for batch 88 pls"
    before, examples = reader.read([text])[0], reader.version
    assert not heads.refresh(registry)
    step(registry, jargon, "registered", 0)
    step(registry, jargon, "champion", 1)
    assert heads.refresh(registry)
    assert not heads.refresh(registry)
    after = reader.read([text, "we need an RMA for 4711"])
    assert [each.intent for each in after] == ["return", "return"]
    assert after[0] != before
    assert 0.5 < after[0].intent_score <= 1
    assert after[0].sentiment == pytest.approx(before.sentiment, abs=1e-5)
    assert reader.version == f"{examples}+{jargon.version}"
    assert reader.reads_with == f"{encoder.identity}+chat_intent@{jargon.version}"


def test_a_model_of_another_encoder_or_a_damaged_one_takes_nobodys_place(jargon: Made) -> None:
    class Other:
        identity, dimension = "other@1", 384

    registry = Lifecycle()
    step(registry, jargon, "registered", 0, sha256="0" * 64)
    step(registry, jargon, "champion", 1)
    damaged = Heads(INTENT, IntentHead, packaged_encoder())
    assert not damaged.refresh(registry)
    assert damaged.current() is None
    whole = Lifecycle()
    step(whole, jargon, "registered", 0)
    step(whole, jargon, "champion", 1)
    foreign = Heads(INTENT, IntentHead, Other())  # type: ignore[arg-type]
    assert not foreign.refresh(whole)
    assert foreign.current() is None


def test_without_corrections_nothing_is_trained(tmp_path: Path) -> None:
    rating = {
        "event_id": "r", "dealer_id": "D1", "subject_type": "chat", "subject_id": "c", "kind": "rating",
        "value": 4.0, "comment": None, "source": "s", "event_time": START,
    }  # fmt: skip
    write_events(tmp_path / "lake", "feedback", [rating])
    with pytest.raises(NotEnoughDataError):
        build(spec("chat_intent"), load(), tmp_path / "lake")


def test_no_source_counts_for_more_than_its_share() -> None:
    sources = np.array(["a"] * 80 + ["b"] * 10 + ["c"] * 6 + ["d"] * 4, object)
    weights = bounded(sources)
    total = {name: weights[sources == name].sum() for name in "abcd"}
    assert total["a"] == pytest.approx(sum(total.values()) / 3)
    assert [total[each] for each in "bcd"] == pytest.approx([10, 6, 4])
    assert bounded(np.array(["a"] * 5 + ["b"] * 2, object)).sum() == pytest.approx(4)
    assert bounded(np.array(["a"] * 5, object)).tolist() == [1.0] * 5
    assert bounded(np.array(list("abcd") * 3, object)).tolist() == [1.0] * 12


def test_a_class_that_nobody_has_shown_is_never_named() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    y = np.where(x[:, 0] > 0, 3, 1)
    found = softmax(x, y, np.ones(60), np.arange(60) >= 40, 5)
    answers = found.predict(x)
    assert set(answers[:, :5].argmax(axis=1)) == {1, 3}
    assert (answers[:, :5].argmax(axis=1) == y).mean() > 0.9
    assert answers[:, :5].sum(axis=1) == pytest.approx(1.0)


def test_carried_messages_labelled_by_their_words_are_learnt(tmp_path: Path) -> None:
    """Real messages; the labels are of their words, which neither the encoder nor the examples know."""
    assert write_carried_chats(tmp_path / "lake") == 440
    found = train(tmp_path / "lake", tmp_path)
    assert refusals(found) == []
    assert found.verdict["against"]["naive answer"]["low"] > 0
