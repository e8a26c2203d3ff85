"""One label: what a feedback says of its subject, as training data.

A chat's dealer and intent are joined by `subject_id`; what the other kinds of subject were is known to the
trainer's history, which joins labels by the same id, point-in-time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.errors import ContractError
from schemas.ids import derived_id

__all__ = ["JOINED", "VERSION", "Record", "Subject", "WrongDealerError", "label_of", "name_of"]

VERSION = "labels-1"
JOINED = frozenset({"chat"})
"""The kinds of subject that a label is joined to."""

Record = dict[str, Any]
_LONGEST = 1_000


class WrongDealerError(ContractError):
    """Feedback of one dealer about a subject of another: as a label it would teach the wrong dealer's model."""

    remedy = "Mend dealer_id or subject_id at the source, then `dealeriq dlq redrive feedback`."


class Subject(NamedTuple):
    """What is known of a subject: whose it is, and what was said of it (a chat's intent)."""

    dealer_id: str
    label: str


def name_of(feedback: Record) -> str:
    """Return the name of what a feedback is about: its kind and id."""
    return f"{feedback['subject_type']}/{feedback['subject_id']}"


def label_of(feedback: Record, subject: Subject | None) -> Record:
    """Return the label of a feedback; `subject` is None where its kind is not joined, or it never came.

    The label is the comment of a correction, else the intent of the chat that it judges, else the kind of
    feedback. Its id follows from the feedback alone, so a repeat is the same event. Raises WrongDealerError.
    """
    kind, identity, cause = feedback["subject_type"], feedback["subject_id"], feedback["event_id"]
    if subject is not None and subject.dealer_id != feedback["dealer_id"]:
        raise WrongDealerError(
            f"feedback of dealer {feedback['dealer_id']} is about {kind} {identity}, "
            f"which is dealer {subject.dealer_id}'s"
        )
    corrected = (feedback["comment"] or "").strip() if feedback["kind"] == "correction" else ""
    said = corrected or (feedback["kind"] if subject is None else subject.label)
    return {
        "event_id": derived_id(VERSION, name_of(feedback), feedback["event_time"], cause),
        "dealer_id": feedback["dealer_id"],
        "subject_type": kind,
        "subject_id": identity,
        "label": said[:_LONGEST],
        "value": feedback["value"],
        "source": feedback["source"],
        "cause_id": cause,
        "event_time": feedback["event_time"],
    }
