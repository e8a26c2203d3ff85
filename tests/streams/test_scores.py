"""Scores written by columns are what a record-at-a-time encoder writes of records made singly, to the byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_model import INPUTS, RULE, VIEW, folder

from features.latest import Latest
from features.plan import load
from models.canary import in_share
from models.rules import InsightRule
from models.runtime import Session
from schemas.codec import Decoder, Encoder
from schemas.derived_ids import derived_ids
from schemas.ids import derived_id
from streams.scoring.readings import rule_version
from streams.scoring.reasons import contributions
from streams.scoring.scorer import Changes, Scorer
from tests.lake_tables import schema_of

PLAN = load(project="scores")
HOUR = 3_600_000
RULES = (
    RULE,
    InsightRule("quiet", "low", 0.4, "notice", "{dealer_id}: {reasons}", "below", over="month", hysteresis=0.1),
)
COLUMNS = [f"{VIEW}__{name}" for name in ("amount_sum_7d", "amount_sum_30d", "count_7d")] + [
    "dealer_orders__amount_sum_30d"
]
VALUES = st.one_of(
    st.none(), st.sampled_from([0.0, -1.0, float("inf")]), st.floats(0, 500, width=32), st.integers(0, 900)
)
ROWS = st.lists(
    st.tuples(
        st.text(min_size=1, max_size=80), st.sampled_from(["FUEL", "GROCERY", "Käse", "x" * 70]),
        st.one_of(st.none(), st.integers(0, 2**44)), st.tuples(*([VALUES] * len(COLUMNS))),
        st.text(min_size=1, max_size=200),
    ),
    max_size=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(folder(tmp_path_factory.mktemp("models"), "büsy", rules=RULES)[0])


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.4g}"


def told_as(name: str, value: float | None) -> str:
    """A value in an insight's words: a category by its name."""
    if value is None:
        return "unknown"
    return ("FUEL", "GROCERY")[int(value)] if name == "kind" else shown(value)


def record_of(
    session: Session, row: Any, *, decided_at: int, shadow: bool, latency_ms: float
) -> dict[str, Any] | None:
    """The record of one score, made by itself; None where there is no score."""
    told = session.description
    dealer, category, time_ms, values, cause = row
    if time_ms is None or all(each is None for each in values):
        return None
    given: dict[str, Any] = dict(zip(COLUMNS, ([each] for each in values), strict=True))
    vectors = session.vectors(given | {"category": [category], "dealer_id": [dealer]}, np.array([time_ms]))
    answers = session.run(vectors)
    subject = f"{dealer}/{category}"
    event_id = derived_id(f"{told.name}/{told.version}", subject, time_ms // HOUR * HOUR, cause)
    vector, answer = vectors[0].tolist(), answers[0].tolist()
    readings = []
    for rule in () if shadow else RULES:
        output = told.outputs.index(rule.output)
        value: float | None = answer[output]
        if rule.over:
            over = vector[[each.name for each in INPUTS].index(rule.over)]
            value = answer[output] / over if over and np.isfinite(over) else None
        above = rule.direction == "above"
        beyond = value is not None and (value > rule.threshold if above else value < rule.threshold)
        reasons = []
        if beyond:
            moved = contributions(session, vectors, answers)[0, :, output]
            towards = moved if above else -moved
            order = [at for at in sorted(range(len(INPUTS)), key=lambda at: -towards[at]) if towards[at] > 0]
            for at in order[:3]:
                held, usual = vector[at], told.reference[at]
                reasons.append(
                    {
                        "input": INPUTS[at].name, "value": held if np.isfinite(held) else None,
                        "usual": float(np.float32(usual)), "by": float(moved[at]),
                    }
                )  # fmt: skip
        words = "; ".join(
            f"{each['input']} {told_as(each['input'], each['value'])} "
            f"(usually {told_as(each['input'], each['usual'])})"
            for each in reasons
        )
        text = rule.message.format(
            subject_id=subject, dealer_id=dealer, score=answer[output], threshold=rule.threshold,
            reasons=words or "no single input stands out",
        )  # fmt: skip
        readings.append(
            {
                "rule": rule.name, "rule_version": rule_version(rule), "severity": rule.severity,
                "above": above,
                "insight_id": derived_id(f"{rule.name}@{rule_version(rule)}", subject, time_ms, event_id),
                "value": value, "threshold": rule.threshold, "hysteresis": rule.hysteresis,
                "cool_down_ms": rule.cool_down_ms, "text": text[:4_000] if beyond else "", "reasons": reasons,
            }
        )  # fmt: skip
    return {
        "event_id": event_id, "dealer_id": dealer, "model": told.name, "model_version": told.version,
        "subject_type": told.subject_type, "subject_id": subject, "score": answer[1],
        "features": {
            each.name: value if np.isfinite(value) else None
            for each, value in zip(INPUTS, vector, strict=True)
        },
        "latency_ms": latency_ms, "shadow": shadow, "outputs": dict(zip(told.outputs, answer, strict=True)),
        "entity": {"dealer_id": dealer, "category": category}, "decided_at": decided_at, "readings": readings,
        "cause_id": cause, "event_time": time_ms,
    }  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(ROWS, st.sampled_from([-1, 0, 63, 64, 2**40]), st.sampled_from(["champion", "challenger", "canary"]))
def test_columns_are_written_as_records_are(
    session: Session, rows: list[Any], decided_at: int, role: str
) -> None:
    rows = list({row[:2]: row for row in rows}.values())
    shadow, share = role != "champion", 0.5 if role == "canary" else 0.0
    scorer = Scorer(session, PLAN, shadow=shadow, decided_at=decided_at, share=share)
    keys = {"dealer_id": [row[0] for row in rows], "category": [row[1] for row in rows]}
    columns = {
        name: np.array([np.nan if row[3][at] is None else row[3][at] for row in rows], np.float64)
        for at, name in enumerate(COLUMNS)
    }
    times = np.array([-1 if row[2] is None else row[2] for row in rows], np.int64)
    latest = Latest(times >= 0, times, columns)
    left = {f"{row[0]}/{row[1]}" for row in rows[::2]} if role == "champion" else set()
    scores, without = scorer.score(Changes(keys, [row[4] for row in rows]), latest, HOUR, left)
    expected = []
    for row in rows:
        subject = f"{row[0]}/{row[1]}"
        counts = in_share("büsy", subject, share) if shadow else subject not in left
        expected.append(
            record_of(session, row, decided_at=decided_at, shadow=not counts, latency_ms=scores.latency_ms)
        )
    wanted = [each for each in expected if each is not None]
    assert without == len(rows) - len(wanted)
    found = scorer.messages(scores, 7)
    decoder = Decoder.of_topic("scores", schema_of("scores"))
    assert [decoder.decode(each) for each in found] == [{**each, "sampled": True} for each in wanted]
    encode = Encoder("scores", 7).encode
    assert found == [encode(each) for each in wanted]


_TIMES = st.one_of(
    st.integers(-(2**60), 2**60), st.integers(0, 19), st.integers(10**12, 10**13 - 1),
    st.sampled_from([10**15 - 1, 10**15, 10**16 - 1, 10**16]),
)  # fmt: skip
_CAUSES = st.one_of(st.text(), st.text("0123456789abcdef", min_size=32, max_size=32))


@given(st.data(), st.sampled_from([_TIMES, st.integers(10**12, 10**13 - 1), st.integers(10**15, 10**16 - 1)]))
def test_ids_of_a_batch_are_those_of_each(data: st.DataObject, times: st.SearchStrategy[int]) -> None:
    """Whatever the rows are like, and where all times have as many digits, or all causes one length."""
    causes = data.draw(st.sampled_from([_CAUSES, st.text("0123456789abcdef", min_size=32, max_size=32)]))
    rows = data.draw(st.lists(st.tuples(st.text(max_size=300), times, causes), max_size=8))
    subjects, moments, ids = ([row[at] for row in rows] for at in range(3))
    found = derived_ids("vé", subjects, np.array(moments, np.int64), ids)
    assert found == [derived_id("vé", *row) for row in rows]
