"""What became of a lead, as feedback says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["OUTCOME", "SUBJECTS", "outcome_of"]

OUTCOME = "outcome"
"""The kind of feedback that says what came of something later."""


SUBJECTS = ("chat", "insight")


def outcome_of(feedback: Mapping[str, Any]) -> float | None:
    """Return 1 where a feedback says that an order came of a chat, or of what an insight told (a value above
    0), and 0 where none did.

    None where it says something else: ratings and thumbs judge how somebody was served, and not what was
    bought.
    """
    if feedback["subject_type"] not in SUBJECTS or feedback["kind"] != OUTCOME:
        return None
    return 1.0 if feedback["value"] > 0 else 0.0
