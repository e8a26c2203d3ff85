"""The errors of the online model are watched: a world that turns is an alarm, one that does not is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.leads import NAMES
from models.leads.replay import replay
from models.monitoring.watch import watch
from models.settings import MonitorSettings
from tests.lake_tables import write_events
from tests.models.lead_talk import DAY, START, talk, write_talk
from tests.models.served import Made, made

WEEK = 7 * DAY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("leads")
    write_talk(root / "lake")
    return made("lead_score", root / "lake", root)


def watched(
    model: Made, root: Path, done: int | None = None, least: int = 5, **more: Any
) -> list[dict[str, Any]]:
    """What the watch says of a stream of half a year, of which the model was trained on none."""
    messages, outcomes = talk(3_000, days=180, **more)
    lessons = [
        {
            "event_id": f"l{at}", "dealer_id": each.feedback["dealer_id"],
            "conversation_id": each.conversation_id, "message_id": each.feedback["subject_id"],
            "outcome": each.outcome, "source": each.feedback["source"], "answer": each.answer,
            "features": dict(zip(NAMES, each.vector, strict=True)), "cause_id": each.feedback["event_id"],
            "event_time": each.feedback["event_time"],
        }
        for at, each in enumerate(replay(messages, outcomes))
    ]  # fmt: skip
    write_events(root, "leads.labelled", lessons)
    first = (START // WEEK + 8) * WEEK  # the model is not young any more
    told = {
        "model": "lead_score", "version": model.version, "artifact": model.folder, "role": "champion",
        "decided_at": 3, "first_ms": first, "done": {} if done is None else {"errors": done},
    }  # fmt: skip
    job = {
        "lake": str(root), "lake_options": {}, "confidence": 0.95, "watched": [told],
        "settings": MonitorSettings(window_days=7, least_dealers=least).model_dump(),
    }  # fmt: skip
    found = watch(job)
    assert found["problems"] == []
    return list(found["observations"])


def test_a_world_that_turns_is_an_alarm_in_its_week(model: Made, tmp_path: Path) -> None:
    found = watched(model, tmp_path, turned=1_800)
    turned = START + 180 * DAY * 1_800 // 3_000
    alarms = [each for each in found if each["alarm"]]
    assert alarms
    assert turned - WEEK < alarms[0]["window_start"] <= turned + WEEK
    assert alarms[0]["text"].startswith("errors rose: mean absolute error")
    assert {each["monitor"] for each in found} == {"errors"}
    assert [each["window_end"] for each in found] == sorted({each["window_end"] for each in found})
    assert len(found) >= 15
    # What was judged is not judged again.
    again = watched(model, tmp_path / "again", done=alarms[0]["window_end"], turned=1_800)
    assert again == [each for each in found if each["window_start"] >= alarms[0]["window_end"]]


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_world_that_stays_is_none(model: Made, tmp_path: Path, seed: int) -> None:
    assert not any(each["alarm"] for each in watched(model, tmp_path, seed=seed))


def test_few_dealers_are_not_judged(model: Made, tmp_path: Path) -> None:
    found = watched(model, tmp_path, least=12, seed=11)
    assert {(each["value"], each["text"]) for each in found} == {
        (None, "not judged: lessons of 11 dealers, of 12 needed")
    }
