"""The registry is a fold of the log: the same records, the same registry; one champion at a time, always."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lifecycle import (
    Lifecycle,
    LifecycleError,
    ModelState,
    NoSuchVersionError,
    decision,
)
from schemas.validate import problems

STAGES = ("registered", "challenger", "champion", "rejected", "retired")


class Log:
    """A log in memory, written through `decision` as the real one is, and its fold."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.fold = Lifecycle()

    def add(self, record: dict[str, Any]) -> str:
        self.records.append(record)
        return self.fold.apply(record, len(self.records) - 1).void

    def step(self, version: str, stage: str, **more: Any) -> str:
        told = {"cause": f"c{len(self.records)}", "event_time": 1_780_000_000_000, "reason": "gates"} | more
        return self.add(decision(self.fold.state("m"), version, stage, "because", **told))

    @property
    def state(self) -> ModelState:
        return self.fold.state("m")


def test_from_registered_to_champion_and_back() -> None:
    log = Log()
    for version in ("v1", "v2", "v3"):
        log.step(version, "registered", run_id=f"run-{version}", artifact=f"/models/{version}", sha256="ab")
    log.step("v1", "champion")
    log.step("v2", "challenger", metrics={"wql": 0.2})
    assert (log.state.champion, log.state.challenger) == ("v1", "v2")
    log.step("v2", "champion")
    assert (log.state.champion, log.state.challenger, log.state.former) == ("v2", None, ["v1"])
    assert log.state.versions["v1"].stage == "retired"
    log.step("v3", "champion")
    assert log.state.before().version == "v2"
    log.step("v2", "champion", reason="rollback")
    assert (log.state.champion, log.state.former) == ("v2", ["v1"])
    log.step("v1", "champion", reason="rollback")
    assert (log.state.champion, log.state.former) == ("v1", [])
    with pytest.raises(LifecycleError, match="no earlier champion"):
        log.state.before()
    assert log.state.versions["v2"].metrics == {"wql": 0.2}
    assert log.state.versions["v1"].run_id == "run-v1"


def test_a_canary_is_a_challenger_with_a_share_that_ends_with_it() -> None:
    log = Log()
    for version in ("v1", "v2"):
        log.step(version, "registered")
    log.step("v1", "champion")
    log.step("v2", "challenger", share=0.1)
    log.step("v2", "challenger", share=0.5)  # a larger share is a decision of its own
    assert (log.state.challenger, log.state.share) == ("v2", 0.5)
    assert log.state.versions["v2"].stage == "challenger"
    with pytest.raises(LifecycleError, match="it is the challenger"):
        log.step("v2", "challenger", share=0.5)
    log.step("v2", "champion", reason="canary")
    log.step("v1", "challenger", reason="canary")  # the old one goes on in shadow
    assert (log.state.champion, log.state.challenger, log.state.share) == ("v2", "v1", 0.0)
    log.step("v1", "champion", reason="rollback")
    assert (log.state.champion, log.state.challenger, log.state.former) == ("v1", None, [])
    log.step("v2", "challenger", share=0.1)
    log.step("v2", "rejected", reason="canary")
    assert (log.state.challenger, log.state.share) == (None, 0.0)
    assert problems("model.lifecycle", log.records[3]) == []


def test_steps_that_cannot_be_are_refused_before_they_are_written() -> None:
    log = Log()
    with pytest.raises(NoSuchVersionError, match="no version 'v1'"):
        log.step("v1", "champion")
    log.step("v1", "registered")
    log.step("v1", "champion")
    for stage, reason in (
        ("champion", "it is the champion"),
        ("challenger", "it is the champion"),
        ("rejected", "never without one"),
        ("retired", "never without one"),
        ("registered", "it is registered"),
    ):
        with pytest.raises(LifecycleError, match=reason):
            log.step("v1", stage)


def test_of_two_promotions_at_once_one_counts() -> None:
    log = Log()
    for version in ("v1", "v2", "v3"):
        log.step(version, "registered")
    log.step("v1", "champion")
    seen = log.state
    told = {"event_time": 1_780_000_000_000, "reason": "person"}
    first = decision(seen, "v2", "champion", "mine", cause="a", **told)
    second = decision(seen, "v3", "champion", "no, mine", cause="b", **told)
    assert log.add(first) == ""
    assert "the last decision is at 4" in log.add(second)
    assert log.state.champion == "v2"
    assert log.add(first) == "it was said before"


def test_a_record_fits_its_topic() -> None:
    record = decision(
        ModelState("m"), "v1", "registered", "new", cause="c", event_time=1_780_000_000_000, reason="gates"
    )
    assert problems("model.lifecycle", record) == []


records = st.lists(
    st.tuples(
        st.sampled_from(("m", "n")),
        st.sampled_from(("v1", "v2", "v3", "v4")),
        st.sampled_from(STAGES),
        st.sampled_from(("gates", "rollback", "person")),
        st.one_of(st.none(), st.integers(-1, 30)),  # None: as the fold has it
        st.sampled_from((0.0, 0.1, 0.5)),
    ),
    max_size=40,
)


@given(records)
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_there_is_one_champion_and_replay_gives_the_same(steps: list[Any]) -> None:
    log = Log()
    had: set[str] = set()
    for at, (model, version, stage, reason, after, share) in enumerate(steps):
        state = log.fold.state(model)
        log.add(
            {
                "event_id": f"e{at}", "model": model, "model_version": version, "stage": stage, "artifact": "",
                "text": "t", "metrics": {}, "reason": reason, "run_id": "", "sha256": "", "cause_id": "c",
                "after": state.position if after is None else after, "event_time": at, "share": share,
            }
        )  # fmt: skip
        for name, each in log.fold.models.items():
            stages = [version.stage for version in each.versions.values()]
            assert (
                stages.count("champion")
                == (each.champion is not None)
                == (name in had or stages.count("champion"))
            )
            assert stages.count("challenger") == (each.challenger is not None)
            assert each.champion is None or each.versions[each.champion].stage == "champion"
            assert each.challenger is not None or each.share == 0.0
            assert set(each.former) <= set(each.versions)
            if each.champion is not None:
                had.add(name)
    again = Lifecycle()
    for at, record in enumerate(log.records):
        again.apply(record, at)
    assert again.as_dict() == log.fold.as_dict()
    twice = Lifecycle()  # a reader that sees a part of it twice, as after a crash, is where it was
    for at, record in [*enumerate(log.records), *enumerate(log.records)]:
        twice.apply(record, at)
    assert twice.as_dict() == again.as_dict()
    assert len(twice.history) == len(log.records)
