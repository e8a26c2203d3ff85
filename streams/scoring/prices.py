"""Price advice in the stream: what a dealer's group would earn at another price, as a score with a reading.

The model is `price_response`; of a dealer's category it is asked what it knows of the group. The advice is that
of `models.pricing`, for revenue: no margin is known here. What the advice would do is told on what the dealer
itself sold in 30 days.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.latest import Latest
from features.plan import Plan
from models.artifact import Description
from models.inputs import Code
from models.pricing import Advice, advise, responses
from models.rules import InsightRule
from models.runtime import Session
from schemas.derived_ids import derived_ids
from streams.scoring.price_board import VIEW, PriceBoard
from streams.scoring.readings import Events, Readings, rule_version
from streams.scoring.scorer import Changes, Scorer, subjects_of
from streams.scoring.scores import Scores, ScoreWriter
from streams.scoring.version import Version

__all__ = ["MODEL", "RULE", "PriceScorer"]

MODEL = "price_response"
_AMOUNT = "amount_sum_30d"
RULE = InsightRule(
    "price_change", "elasticity", 0.02, "notice",
    "{subject_id}: {reasons}.", hysteresis=0.01, cool_down_ms=28 * 86_400_000,
)  # fmt: skip
"""Its value is the expected gain of revenue, as a share of it: 0 where the advice is to keep the price."""


class PriceScorer(Scorer):
    """One version of `price_response`, asked about dealers' categories."""

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None:
        Version.__init__(self, session, plan, shadow=shadow, decided_at=decided_at, share=share)
        self.entity, self.views, self.triggers = ("dealer_id", "category"), {VIEW: (_AMOUNT,)}, (VIEW,)
        told = replace(session.description, subject_type="dealer_category", rules=(RULE,))
        self._writer = ScoreWriter(told, decided_at)
        self.advice: dict[str, Advice] = {each.group: advise(each) for each in responses(session)}
        self._group = next(at for at, each in enumerate(session.description.inputs) if isinstance(each, Code))
        self._place = {group: at for at, group in enumerate(self.advice)}
        self._version = rule_version(RULE)

    @property
    def board(self) -> PriceBoard:
        """What it knows of each group."""
        return PriceBoard.of(self.version, (each.response for each in self.advice.values()))

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether a model tells elasticities of groups."""
        return told.name == MODEL and "elasticity" in told.outputs

    def score(
        self, changes: Changes, latest: Latest, bucket_ms: int, left: Set[str] = frozenset()
    ) -> tuple[Scores, int]:
        """Return a score for each dealer's category whose group is known, and how many got none."""
        began = time.perf_counter()
        amounts = latest.columns[f"{VIEW}__{_AMOUNT}"]
        places = np.array([self._place.get(each, -1) for each in changes.keys["category"]], np.int64)
        rows = np.flatnonzero(latest.known & (places >= 0) & ~np.isnan(amounts))
        keys, causes = changes.chosen(rows)
        vectors = np.full((len(rows), len(self.session.description.inputs)), np.nan, np.float32)
        vectors[:, self._group] = places[rows]
        answers = self.session.run(vectors)
        latency_ms = (time.perf_counter() - began) * 1000
        subjects, times = subjects_of(keys, self.entity), latest.times[rows]

        def read(events: Events, at: NDArray[np.int64]) -> Readings:
            some = at.tolist()
            advice = [self.advice[keys["category"][row]] for row in some]
            return self._readings(events, at, advice, amounts[rows[at]].tolist())

        scores = self._scores(
            rows, keys, subjects, causes, times, times // bucket_ms * bucket_ms, vectors, answers, latency_ms,
            self._counts(subjects, left), read=read,
        )  # fmt: skip
        return scores, len(changes) - len(scores)

    def _readings(
        self, events: Events, at: NDArray[np.int64], advice: Sequence[Advice], amounts: Sequence[float]
    ) -> Readings:
        rows = at.tolist()
        subjects, causes = ([column[row] for row in rows] for column in (events.subjects, events.ids))
        ids = derived_ids(f"{RULE.name}@{self._version}", subjects, events.times[at], causes)
        values = [each.gain.expected if each.change else 0.0 for each in advice]
        told: dict[int, list[dict[str, Any]]] = {}
        for row, insight_id, each, value, amount in zip(rows, ids, advice, values, amounts, strict=True):
            if value > RULE.threshold:
                reason = {"input": "elasticity", "value": each.response.elasticity, "usual": -1.0, "by": value}
                told[row] = [
                    {
                        "insight_id": insight_id, "value": value, "text": _text(each, amount),
                        "reasons": [reason],
                    }
                ]  # fmt: skip
        return Readings(at, [ids], [np.array(values, np.float64)], told)


def _text(advice: Advice, amount: float) -> str:
    """What the change is expected to do, on the dealer's own sales; at -1 revenue is the same at any price."""
    told, revenue = advice.response, advice.revenue
    money = ", ".join(f"{amount * each:+,.0f}" for each in (revenue.low, revenue.high))
    return (
        f"{told.group} at {advice.change:+.0%} is expected to bring {revenue.expected:+.1%} revenue "
        f"({revenue.low:+.1%} to {revenue.high:+.1%}): of {amount:,.0f} in 30 days "
        f"{amount * revenue.expected:+,.0f} ({money}). Elasticity {told.elasticity:+.2f} "
        f"({told.low:+.2f} to {told.high:+.2f}), from prices as they were set, not from an experiment."
    )
