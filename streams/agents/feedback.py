"""feedback → labels: what was said about a chat, order, insight, search or recommendation, as training data.

The join is by `subject_id`, which feedback carries. A chat's intent and dealer come from the view of subjects;
what the other kinds were is known to the trainer's history, which joins labels by the same id, point-in-time.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import RedisError

from schemas.errors import ContractError
from schemas.ids import derived_id
from streams.agents.stage import Derived, Record, Stage
from streams.agents.subjects import Subject, Subjects

__all__ = ["VERSION", "FeedbackStage", "WrongDealerError"]

VERSION = "labels-1"
_JOINED = frozenset({"chat"})
_LONGEST = 1_000


class WrongDealerError(ContractError):
    """Feedback of one dealer about a subject of another: as a label it would teach the wrong dealer's model."""

    remedy = "Mend dealer_id or subject_id at the source, then `dealeriq dlq redrive feedback`."


class FeedbackStage(Stage):
    """Makes each feedback a label.

    The label is the comment of a correction, else the intent of the chat that it judges, else the kind of
    feedback. Outcomes: `produced` (joined, or of a kind that needs no join) and `unknown_subject` (the chat is
    not in the view, not yet or no longer: the label goes out all the same, with the kind as its label).
    """

    name = "feedback-agent"
    source = "feedback"
    target = "labels"
    retried = (RedisError,)

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects

    def handle(self, records: Sequence[Record]) -> list[Derived]:
        """Return one label for each feedback. Raises WrongDealerError."""
        asked = [
            (each["subject_type"], each["subject_id"]) for each in records if each["subject_type"] in _JOINED
        ]
        known = dict(zip(asked, self._subjects.read(asked), strict=True))
        return [self._label(each, known.get((each["subject_type"], each["subject_id"]))) for each in records]

    def _label(self, record: Record, subject: Subject | None) -> Derived:
        kind, identity, cause = record["subject_type"], record["subject_id"], record["event_id"]
        if subject is not None and subject.dealer_id != record["dealer_id"]:
            raise WrongDealerError(
                f"feedback of dealer {record['dealer_id']} is about {kind} {identity}, "
                f"which is dealer {subject.dealer_id}'s"
            )
        corrected = (record["comment"] or "").strip() if record["kind"] == "correction" else ""
        label = corrected or (subject.label if subject is not None else record["kind"])
        event_time = record["event_time"]
        event = {
            "event_id": derived_id(VERSION, f"{kind}/{identity}", event_time, cause),
            "dealer_id": record["dealer_id"],
            "subject_type": kind,
            "subject_id": identity,
            "label": label[:_LONGEST],
            "value": record["value"],
            "source": record["source"],
            "cause_id": cause,
            "event_time": event_time,
        }
        unknown = subject is None and kind in _JOINED
        return Derived(record["dealer_id"], event, identity, "unknown_subject" if unknown else "produced")
