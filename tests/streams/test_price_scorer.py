"""Price advice in the stream: a score of a dealer's category, and what another price would do to its sales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from score_world import HOUR, NOON, World

from models.artifact import load
from models.pricing import advise, responses
from models.runtime import Session
from schemas.validate import problems
from streams.insights.explain import explain
from streams.scoring.price_board import PriceBoard
from streams.scoring.prices import RULE, PriceScorer
from tests.models.prices import STEADY, write_prices
from tests.models.served import made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prices")
    write_prices(root / "lake")
    return Path(made("price_response", root / "lake", root).folder)


def test_advice_is_told_on_the_dealers_own_sales(store: Any, served: Path) -> None:
    world, session = World(store, served, load(served)[0]), Session(served)
    for day in range(3):
        for category in ("GROCERY", STEADY, "NEVER SEEN"):
            world.order("a", category, 100.0, NOON + day * 24 * HOUR)
            world.fold()
    world.score()
    found = {each["subject_id"]: each for each in world.topic.records}
    assert set(found) == {"a/GROCERY", f"a/{STEADY}"}
    known = {each.group: each for each in responses(session)}
    told = found["a/GROCERY"]
    expected = advise(known["GROCERY"])
    (reading,) = told["readings"]
    assert (reading["rule"], reading["threshold"]) == ("price_change", RULE.threshold)
    assert reading["value"] == expected.gain.expected > 0.02
    assert expected.change < 0  # GROCERY sells more than in proportion when it is cheaper
    assert f"GROCERY at {expected.change:+.0%}" in reading["text"]
    assert f"of 300 in 30 days {300 * expected.revenue.expected:+,.0f}" in reading["text"]
    assert reading["reasons"][0]["value"] == known["GROCERY"].elasticity
    (kept,) = found[f"a/{STEADY}"]["readings"]
    assert (kept["value"], kept["text"], kept["reasons"]) == (0.0, "", [])
    for record in found.values():
        assert explain(session, record).same
        assert record["entity"]["dealer_id"] == record["dealer_id"] == "a"
        assert not problems("scores", record)


def test_the_board_says_what_the_version_knows(store: Any, served: Path) -> None:
    world = World(store, served, load(served)[0])
    (each,) = world.models.current().values()
    assert isinstance(each.champion, PriceScorer)
    board = each.champion.board
    assert PriceBoard.load(board.dump()) == board
    assert board.groups == tuple(responses(Session(served)))
    assert PriceBoard.load(None) == PriceBoard(None, ())
