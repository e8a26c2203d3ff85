"""Verify's proof of the models: what it works out by itself, and each violation that is planted."""

from __future__ import annotations

import uuid
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka import ensure_topics, producer
from connectors.registry import Registry
from dealeriq.settings import Settings
from models.canary import in_share
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from schemas.codec import Encoder
from streams.verify.broker import Broker
from streams.verify.models import LATE_MS, Reign, _champions, _judged, _told, reigns_of, verify_models

NOW = 1_780_000_000_000
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["m", "n"]),
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from(["registered", "challenger", "champion", "rejected", "retired"]),
        st.integers(-1, 12),
        st.integers(0, 9),
        st.sampled_from([0.0, 0.1, 0.5]),
    ),
    max_size=40,
)


def record(
    model: str, version: str, stage: str, after: int, event_id: str, share: float = 0.0
) -> dict[str, Any]:
    return {
        "event_id": event_id, "model": model, "model_version": version, "stage": stage, "artifact": "",
        "text": "x", "metrics": {}, "reason": "gates", "after": after, "run_id": "", "sha256": "",
        "cause_id": "c", "event_time": NOW, "share": share,
    }  # fmt: skip


@given(STEPS, st.booleans())
def test_what_it_works_out_is_what_the_registry_says(steps: list[Any], right: bool) -> None:
    """Records as they come, most of them void; or, with `right`, each written as seen from the log's end."""
    fold, records = Lifecycle(), []
    for at, (model, version, stage, after, number, share) in enumerate(steps):
        seen = fold.state(model).position if right else after
        made = record(model, version, stage, seen, f"e{at}" if right else f"e{number}", share)
        records.append((at, NOW + at, made))
        fold.apply(made, at)
    reigns = reigns_of(records)
    for role in ("champion", "challenger"):
        open_ = {each.model: each.version for each in reigns if each.role == role and each.until_ms is None}
        told = {name: getattr(state, role) for name, state in fold.models.items() if getattr(state, role)}
        assert open_ == told
    counted = [each.at for each in fold.history if not each.void and each.stage in ("champion", "challenger")]
    assert sorted(each.at for each in reigns) == counted
    assert list(_champions(records, reigns)) == []


def test_a_registry_without_its_one_champion_is_found() -> None:
    records = [
        (0, NOW, record("m", "v1", "registered", -1, "a")), (1, NOW, record("m", "v1", "champion", -1, "b")),
        (2, NOW, record("m", "v2", "registered", -1, "c")), (3, NOW, record("m", "v2", "champion", 1, "d")),
    ]  # fmt: skip
    first, second = reigns_of(records)
    assert (first.until_ms, second.until_ms) == (NOW, None)
    two = [Reign("m", "v1", "champion", 1, NOW), second]
    none = [first, Reign("m", "v2", "champion", 3, NOW, NOW)]
    other = [first, Reign("m", "v1", "champion", 3, NOW)]
    for wrong in (two, none, other):
        assert [each.kind for each in _champions(records, wrong)] == ["champion"]


def scores(*rows: tuple[str, bool, int, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "event_id": f"s{i}",
                "model": "m",
                "model_version": v,
                "shadow": s,
                "decided_at": d,
                "subject_id": "inside" if i % 2 else "out",
                "_timestamp": t,
            }
            for i, (v, s, d, t) in enumerate(rows)
        ]
    )


def test_each_score_must_be_of_its_times_version() -> None:
    hour = 3_600_000
    reigns = {
        ("m", 1): Reign("m", "v1", "champion", 1, NOW, NOW + hour),
        ("m", 2): Reign("m", "v2", "challenger", 2, NOW, NOW + hour),
        ("m", 3): Reign("m", "v2", "champion", 3, NOW + hour),
    }
    right = [
        ("v1", False, 1, NOW), ("v1", False, 1, NOW + hour + LATE_MS), ("v2", True, 2, NOW + 5),
        ("v2", False, 3, NOW + 100 * hour), ("v2", False, 3, NOW + hour - LATE_MS),
    ]  # fmt: skip
    assert list(_judged(scores(*right), reigns)) == []
    for row, kind in [
        (("v1", True, 1, NOW), "score-version"),  # shadow by a champion's decision
        (("v2", False, 2, NOW), "score-version"),  # a challenger that says it is champion
        (("v3", False, 1, NOW), "score-version"),  # of a version that nobody decided
        (("v1", False, 7, NOW), "score-version"),  # by a decision that is not there
        (("v1", False, -1, NOW), "score-version"),
        (("v1", False, 1, NOW - LATE_MS - 1), "score-time"),
        (("v1", False, 1, NOW + hour + LATE_MS + 1), "score-time"),
    ]:
        (found,) = _judged(scores(*right, row), reigns)
        assert (found.kind, found.entity) == (kind, (row[0], f"s{len(right)}"))
    assert list(_judged(pl.DataFrame(), reigns)) == []


def test_a_canary_counts_for_its_share_and_there_the_champion_is_the_shadow() -> None:
    share = 0.5
    inside = next(f"d{n}" for n in range(99) if in_share("m", f"d{n}", share))
    out = next(f"d{n}" for n in range(99) if not in_share("m", f"d{n}", share))
    reigns = {
        ("m", 1): Reign("m", "v1", "champion", 1, NOW),
        ("m", 2): Reign("m", "v2", "challenger", 2, NOW + 10 * LATE_MS, NOW + 20 * LATE_MS, share),
    }
    then = NOW + 15 * LATE_MS

    def found(version: str, shadow: bool, decided: int, subject: str, at: int = then) -> list[str]:
        given = scores((version, shadow, decided, at)).with_columns(subject_id=pl.lit(subject))
        return [each.kind for each in _judged(given, reigns)]

    assert found("v2", False, 2, inside) == found("v1", True, 1, inside) == []
    assert found("v2", True, 2, out) == found("v1", False, 1, out) == []
    assert found("v2", True, 2, inside) == []  # it may fail the one time and answer the next
    assert found("v2", False, 2, out) == ["score-version"]
    assert found("v1", True, 1, out) == ["score-version"]
    assert found("v1", True, 1, inside, NOW) == ["score-version"]  # before there was a canary


def test_an_insight_is_told_once_and_by_the_champion() -> None:
    told = pl.DataFrame({"event_id": ["i1", "i2", "i3", "i1"], "cause_id": ["s0", "s1", "gone", "s0"]})
    known = scores(("v1", False, 1, NOW), ("v2", True, 2, NOW))
    found = [(each.kind, each.entity) for each in _told(told, known)]
    assert sorted(found) == [("duplicate-insight", ("i1",)), ("insight", ("i2",)), ("insight", ("i3",))]
    assert [each.kind for each in _told(told, None)] == ["duplicate-insight"]
    assert list(_told(pl.DataFrame(), known)) == []


@pytest.mark.services
def test_it_reads_the_topics_of_a_real_system(stack: Settings) -> None:
    """Planted beside what other tests left: two scores that are right, two that are not, one insight twice."""
    model, mark = f"m{uuid.uuid4().hex[:8]}", uuid.uuid4().hex[:8]
    registry = Registry(stack.registry)
    topics = ["model.lifecycle", "scores", "insights"]
    ensure_topics(stack.kafka, topics)
    ids = registry.register_all(topics)
    with LifecycleLog(stack.kafka, stack.registry) as log:
        for version, stage in (("v1", "registered"), ("v2", "registered")):
            log.write(model, version, stage, "a test", cause=uuid.uuid4().hex, reason="training")
        first = log.write(model, "v1", "champion", "a test", cause=uuid.uuid4().hex, reason="gates").at
        second = log.write(model, "v2", "challenger", "a test", cause=uuid.uuid4().hex, reason="gates").at
    base = {
        "dealer_id": f"d{mark}", "model": model, "subject_type": "dealer", "subject_id": f"d{mark}",
        "score": 1.0, "cause_id": "t", "event_time": NOW,
    }  # fmt: skip
    out = producer(stack.kafka)

    def send(topic: str, value: dict[str, Any]) -> None:
        schema = Encoder(topic, ids[f"{topic}-value"])
        out.produce(topic, schema.encode(value), key=f"d{mark}".encode())

    for name, version, shadow, decided in (
        ("right", "v1", False, first), ("aside", "v2", True, second), ("wrong", "v2", False, second),
        ("never", "v1", False, second + 1_000_000),
    ):  # fmt: skip
        more = {"model_version": version, "shadow": shadow, "decided_at": decided, "event_id": f"{mark}-{name}"}
        send("scores", base | more | SCORE)
    insight = {
        "event_id": f"{mark}-i", "dealer_id": f"d{mark}", "rule": "r", "rule_version": "1", "severity": "info",
        "text": "x", "value": 1.0, "threshold": 0.0, "subject_type": "dealer", "subject_id": f"d{mark}",
        "model": model, "model_version": "v1", "reasons": [], "score_position": "", "cause_id": f"{mark}-right",
        "event_time": NOW,
    }  # fmt: skip
    for value in (insight, insight, insight | {"event_id": f"{mark}-j", "cause_id": f"{mark}-aside"}):
        send("insights", value)
    assert out.flush(60) == 0
    for sampled in (False, True):
        check = verify_models(Broker(stack.kafka), registry, sampled=sampled, pause=lambda: None)
        mine = [
            each for each in check.findings if model in (each.view, *each.entity) or mark in str(each.entity)
        ]
        found = sorted((each.kind, each.entity[-1]) for each in mine)
        expected = [
            ("duplicate-insight", f"{mark}-i"), ("score-version", f"{mark}-never"),
            ("score-version", f"{mark}-wrong"),
        ]  # fmt: skip
        if not sampled:
            expected.insert(1, ("insight", f"{mark}-j"))
        assert found == expected
        assert check.decisions >= 2
        assert check.scores >= 4
        assert check.insights >= 3


SCORE = {"features": {}, "latency_ms": 0.0, "outputs": {}, "entity": {}, "readings": []}
