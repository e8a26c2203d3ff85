"""Price advice in the stream: what a dealer's group would earn at another price, as a score with a reading.

The model is `price_response`; of a dealer's category it is asked what it knows of the group. The advice is that
of `models.pricing`, for revenue: no margin is known here. What the advice would do is told on what the dealer
itself sold in 30 days.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from features.latest import Moment
from features.plan import Plan
from models.artifact import Description
from models.inputs import Code
from models.pricing import Advice, advise, responses
from models.rules import InsightRule
from models.runtime import Session
from schemas.ids import derived_id
from streams.scoring.price_board import VIEW, PriceBoard
from streams.scoring.readings import rule_version
from streams.scoring.scorer import Change, Scorer, subject_of
from streams.scoring.version import About, Version

__all__ = ["MODEL", "RULE", "PriceScorer"]

MODEL = "price_response"
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
        self.entity, self.views, self.triggers = ("dealer_id", "category"), (VIEW,), (VIEW,)
        self.advice: dict[str, Advice] = {each.group: advise(each) for each in responses(session)}
        names = [each.name for each in plan.views[VIEW].features]
        self._amount = names.index("amount_sum_30d")
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
        self,
        changes: Sequence[Change],
        moments: Sequence[Moment],
        bucket_ms: int,
        left: Set[str] = frozenset(),
    ) -> tuple[list[dict[str, Any]], int]:
        """Return a score for each dealer's category whose group is known, and how many got none."""
        began = time.perf_counter()
        chosen = [
            (change, moment, float(amount))
            for change, moment in zip(changes, moments, strict=True)
            if moment.time_ms is not None
            and change.entity["category"] in self.advice
            and (amount := moment.rows[VIEW].values[self._amount]) is not None
        ]
        if not chosen:
            return [], len(changes)
        vectors = np.full((len(chosen), len(self.session.description.inputs)), np.nan, np.float32)
        vectors[:, self._group] = [self._place[change.entity["category"]] for change, _, _ in chosen]
        answers = self.session.run(vectors)
        latency_ms = (time.perf_counter() - began) * 1000
        prefix = f"{self.model}/{self.version}"
        abouts = []
        for change, moment, _ in chosen:
            subject, time_ms = subject_of(change.entity, self.entity), moment.time_ms or 0
            event_id = derived_id(prefix, subject, time_ms // bucket_ms * bucket_ms, change.cause_id)
            counts = self._counts(subject, left)
            dealer = change.entity["dealer_id"]
            abouts.append(About(event_id, dealer, subject, change.entity, change.cause_id, time_ms, counts))
        records = self._records(abouts, vectors, answers, latency_ms)
        for record, (change, _, amount), about in zip(records, chosen, abouts, strict=True):
            record["subject_type"] = "dealer_category"
            if about.counts:
                record["readings"] = [self._reading(record, self.advice[change.entity["category"]], amount)]
        return records, len(changes) - len(records)

    def _reading(self, record: dict[str, Any], advice: Advice, amount: float) -> dict[str, Any]:
        told = advice.response
        value = advice.gain.expected if advice.change else 0.0
        identity = derived_id(
            f"{RULE.name}@{self._version}", record["subject_id"], record["event_time"], record["event_id"]
        )
        beyond = value > RULE.threshold
        return {
            "rule": RULE.name, "rule_version": self._version, "insight_id": identity, "severity": RULE.severity,
            "above": True, "value": value, "threshold": RULE.threshold, "hysteresis": RULE.hysteresis,
            "cool_down_ms": RULE.cool_down_ms,
            "text": _text(advice, amount) if beyond else "",
            "reasons": [{"input": "elasticity", "value": told.elasticity, "usual": -1.0, "by": value}]
            if beyond else [],
        }  # fmt: skip


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
