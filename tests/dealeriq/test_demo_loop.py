"""The story of the loop: dealers who change how they order and nothing else, and what is told of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from connectors.demo_data import Source
from dealeriq.demo.again import same_answers
from dealeriq.demo.changed import WEEK_MS, days, newest_of, week_of, weeks
from dealeriq.demo.summary import loop_summary
from models.runtime import Session
from tests.streams.scoring_model import folder

CHANGE, LAST = 2, 8


def lines(sources: list[Source]) -> pl.DataFrame:
    table = pl.concat([frame for each in sources for frame in each.frames()])
    return table.with_columns(week=(pl.col("event_time") - week_of(0)) // WEEK_MS)


def test_dealers_order_every_other_week_from_the_change_on_and_as_much_in_all() -> None:
    changed, as_ever = (lines(weeks(6, change, LAST)) for change in (CHANGE, LAST))
    assert changed["dealer_id"].n_unique() == 6
    assert changed["event_time"].is_sorted()
    before, same = (each.filter(pl.col("week") < CHANGE) for each in (changed, as_ever))
    assert before.equals(same)
    for dealer in changed["dealer_id"].unique():
        mine = changed.filter((pl.col("dealer_id") == dealer) & (pl.col("week") >= CHANGE))
        assert {week % 2 for week in mine["week"]} in ({0}, {1})
        mine, theirs = (
            each.filter((pl.col("dealer_id") == dealer) & (pl.col("week") < LAST - 2))
            for each in (changed, as_ever)
        )
        # Nothing is lost or made, but that it comes at most a week later.
        missing = set(theirs["event_id"]) - set(mine["event_id"])
        assert missing <= set(as_ever.filter(pl.col("week") == LAST - 3)["event_id"])
        assert set(mine["event_id"]) <= set(theirs["event_id"])
        assert mine.join(theirs, on=["event_id", "amount", "quantity"]).height == mine.height
    assert changed["event_id"].n_unique() == changed.height


def test_a_week_is_its_days() -> None:
    (week,) = weeks(6, 9, 1)
    parts = days(week)
    assert len(parts) == 7
    assert pl.concat([each.frame(0, len(each)) for each in parts]).equals(week.frame(0, len(week)))
    for number, part in enumerate(parts):
        assert set(part.times // 86_400_000) == {week_of(0) // 86_400_000 + number}
        newest = newest_of(part)
        for each in part.frame(0, len(part)).iter_rows(named=True):
            assert newest[f"{each['dealer_id']}/{each['category']}"] >= each["event_time"]
        assert set(newest.values()) <= set(part.times.tolist())


def test_a_version_answers_again_as_it_did_and_another_does_not(tmp_path: Path) -> None:
    (one, told), (other, _) = (folder(tmp_path, "busy", seed=seed) for seed in (1, 2))
    session = Session(one)
    rng = np.random.default_rng(4)
    vectors = rng.gamma(2.0, 60.0, (50, len(told.inputs))).astype(np.float32)
    vectors[rng.random(vectors.shape) < 0.1] = np.nan
    answers = session.run(vectors)
    scores = [
        {
            "features": {
                each.name: None if np.isnan(value) else float(value)
                for each, value in zip(told.inputs, row, strict=True)
            },
            "outputs": dict(zip(told.outputs, map(float, answer), strict=True)),
        }
        for row, answer in zip(vectors, answers, strict=True)
    ]
    assert same_answers(session, scores) == 50
    assert same_answers(Session(other), scores) < 50
    scores[7]["outputs"]["low"] = float(np.nextafter(np.float32(scores[7]["outputs"]["low"]), np.float32(1e9)))
    assert same_answers(session, scores) == 49


def step(what: str, event_ms: int = 0, text: str = "") -> dict[str, Any]:
    return {"at_s": 1.0, "what": what, "event_ms": event_ms, "text": text}


def run(**more: Any) -> dict[str, Any]:
    """A run in which all went as it should."""
    measured = [
        {"window_end": end, "version": version, "role": role, "error": error, "rows": 9}
        for end in (5, 6)
        for version, role, error in (("old", "challenger", 0.5), ("new", "champion", 0.3))
    ]
    first = [{"window_end": 1, "version": "old", "role": "champion", "error": 0.2, "rows": 9}]
    told: dict[str, Any] = {
        "steps": [
            step("registered"), step("champion", 0, "old (gates): passed"), step("alarm", week_of(3)),
            step("registered"), step("rejected", 0, "bad (gates): refused"), step("registered"),
            step("champion", 0, "new (canary): better"),
        ],
        "changed_ms": week_of(2), "errors": [*first, *measured],
        "champions": [
            {"version": "old", "reason": "gates"}, {"version": "new", "reason": "canary"},
            {"version": "old", "reason": "rollback"},
        ],
        "rolled_back": {"from": "new", "subjects": 12, "known": 10, "same": 10},
    }  # fmt: skip
    return told | more


def test_a_run_is_summed_up_in_numbers_and_words() -> None:
    found = loop_summary(run())
    assert found["ok"]
    assert (found["trainings"], found["refused"], found["promoted"]) == (3, 1, 1)
    assert (found["alarms_before"], found["alarms_after"], found["days_to_alarm"]) == (0, 1, 7.0)
    # Of the same windows alone, and a rollback is no promotion.
    (fall,) = found["falls"]
    assert fall == {"before": "old", "version": "new", "windows": 2, "error_before": 0.5, "error": 0.3}
    assert "0.300 of new, 0.500 of old in the same 2 weeks" in found["text"]
    assert "10 of 10 scores as before" in found["text"]


@pytest.mark.parametrize(
    "more",
    [
        {"rolled_back": {"subjects": 12, "known": 10, "same": 9}},
        {"rolled_back": {"subjects": 12, "known": 0, "same": 0}},
        {"rolled_back": {}},
        {"steps": [*run()["steps"], step("alarm", week_of(1))]},
        {"steps": [each for each in run()["steps"] if each["what"] != "alarm"]},
        {"steps": run()["steps"][:-1]},
        {"steps": [each for each in run()["steps"] if each["what"] != "rejected"]},
        {"errors": [each | {"error": 0.5} for each in run()["errors"]]},
        {"errors": run()["errors"][:1]},
    ],
)
def test_what_went_otherwise_is_not_ok(more: dict[str, Any]) -> None:
    assert not loop_summary(run(**more))["ok"]
