"""How likely a conversation turns into an order: a model that moves with each outcome it hears of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from models.inputs import Coefficient, EventField, Input
from models.leads import COEFFICIENTS, NAMES
from models.leads.outcome import OUTCOME
from models.rules import InsightRule
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.training import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["LeadScore"]

_MESSAGE = [
    "event_id", "conversation_id", "dealer_id", "sender", "text", "intent", "intent_score", "sentiment",
    "urgency", "cause_id",
]  # fmt: skip
_FEEDBACK = ["event_id", "dealer_id", "subject_type", "subject_id", "kind", "value", "source"]


def _inputs() -> tuple[Input, ...]:
    return (
        *(EventField(each, each) for each in NAMES),
        *(Coefficient(each, each) for each in COEFFICIENTS),
    )


class LeadScore(ModelSpec):
    """Logistic regression that learns online (River), as it was at each moment of the past.

    A row is an outcome: feedback of kind `outcome` about a chat. Its vector is that of the message it is about,
    with the coefficients that the learner had then, from the outcomes that had come before. So the holdout
    judges what the stream would have said, and a training only fits how log-odds become probabilities.
    """

    name = "lead_score"
    summary = "How likely a conversation turns into an order, 0 to 1; it learns from each outcome as it comes."
    entity = ("dealer_id", "conversation_id")
    subject_type = "lead"
    inputs = _inputs()
    label = Label("feedback", 0, DAY_MS, "yes", "an outcome above 0 was told of the chat")
    outputs = ("probability",)
    score = "probability"
    split = Split(holdout_ms=28 * DAY_MS, tune_ms=14 * DAY_MS)
    gate = Gate("log_loss")
    rules = (
        InsightRule(
            "hot_lead", "probability", 0.7, "notice",
            "Conversation {subject_id} may well become an order ({score:.0%}): {reasons}.",
            hysteresis=0.1, cool_down_ms=3 * DAY_MS,
        ),
    )  # fmt: skip
    lessons = "leads.labelled"
    in_stream = False

    def rows(self, stream: Stream) -> pa.Table:
        """Return the outcomes, each with the vector and the coefficients of the message that it is about."""
        from models.leads.replay import replay

        said = stream.events("feedback", _FEEDBACK, f"subject_type = 'chat' AND kind = '{OUTCOME}'").to_pylist()
        # Only conversations of which something was told make rows; those of others teach nothing.
        told = {each["subject_id"] for each in said}
        messages = stream.events("chats.enriched", _MESSAGE).to_pylist() if told else []
        wanted = {(each["dealer_id"], each["conversation_id"]) for each in messages if each["cause_id"] in told}
        kept = (each for each in messages if (each["dealer_id"], each["conversation_id"]) in wanted)
        found = list(replay(kept, said))
        numbers = np.array(
            [(*each.vector, *each.coefficients) for each in found], np.float64
        ).reshape(-1, len(self.inputs))  # fmt: skip
        return pa.table(
            {
                "dealer_id": pa.array([each.feedback["dealer_id"] for each in found], pa.string()),
                "conversation_id": pa.array([each.conversation_id for each in found], pa.string()),
                "source": pa.array([each.feedback["source"] for each in found], pa.string()),
                "outcome": pa.array([each.outcome for each in found], pa.float64()),
                "event_timestamp": pa.array([each.feedback["event_time"] for each in found], pa.int64()),
                **{f"@{each.name}": numbers[:, at] for at, each in enumerate(self.inputs)},
            }
        )

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return what was told."""
        return np.asarray(rows["outcome"].to_numpy(), np.float64)

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Calibrate the learner's answers of the past (Platt)."""
        from models.training.boosted import platt
        from models.training.online import OnlineLinear

        at = np.concatenate([fit, tune])
        slope, intercept = platt(OnlineLinear(len(NAMES)).odds(data.x[at]), data.y[at])
        return OnlineLinear(len(NAMES), max(slope, 0.0), intercept)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the share of leads that had become orders by then."""
        early = data.time <= data.time[at].min() - self.label.known_after_ms
        share = (data.y[early].sum() + 0.5) / (early.sum() + 1.0)
        return np.full((len(at), 1), share)

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return AUC, average precision, calibration and losses."""
        return metrics.binary(truth, answers, weights)

    def segments(self, data: TrainingSet) -> Mapping[str, NDArray[np.bool_]]:
        """Return short and long conversations."""
        length = data.column("messages")
        middle = float(np.median(length))
        return {"conversation=short": length <= middle, "conversation=long": length > middle}

    def cold(self, data: TrainingSet) -> NDArray[np.bool_]:
        """Return the leads of dealers of whom nothing had been told before."""
        dealer = data.key("dealer_id").astype(str)
        _, number = np.unique(dealer, return_inverse=True)
        first = np.full(number.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, number, data.time)
        return np.asarray(data.time == first[number])
