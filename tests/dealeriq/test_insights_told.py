"""What `dealeriq insights explain` prints: what moved the score, and how much more there is that did not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dealeriq.cli.insights import _tell
from streams.insights.explain import Explanation

INSIGHT: dict[str, Any] = {
    "event_time": 1_493_683_200_000, "severity": "notice", "dealer_id": "367", "text": "Late.",
    "rule": "late", "rule_version": "c8858d673f4e", "value": 0.9, "threshold": 0.7,
}  # fmt: skip
SCORE = {
    "event_id": "s1", "model": "reorder", "model_version": "v1", "features": {"week": 2.0, "month": 3.0},
}  # fmt: skip


def inputs(*moves: float) -> list[dict[str, Any]]:
    return [{"input": f"input_{at}", "value": 1.5, "usual": None, "by": by} for at, by in enumerate(moves)]


@pytest.mark.parametrize(("moves", "still"), [((0.4, -0.2, 0.0, 0.0), 2), ((0.4, -0.2), 0), ((0.0,), 1)])
def test_only_what_moved_a_score_is_listed(
    moves: tuple[float, ...], still: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell(INSIGHT, Explanation(SCORE, {"risk": 0.9}, True, inputs(*moves)), "run-1", [], set())
    told = capsys.readouterr().out
    listed = re.findall(r"^  (input_\d+) +1\.5 +unknown +(\S+)$", told, re.MULTILINE)
    assert listed == [(f"input_{at}", f"{by:g}") for at, by in enumerate(moves) if by]
    words = {0: [], 1: ["1 more input did"]}.get(still, [f"{still} more inputs did"])
    assert re.findall(r"\d+ more inputs? did", told) == words
    assert "the same to the bit" in told
