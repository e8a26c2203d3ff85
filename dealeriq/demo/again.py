"""Are the scores after a rollback those of before it, to the bit."""

from __future__ import annotations

from typing import Any

from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.settings import Settings
from schemas.codec import Decoder

__all__ = ["same_scores"]

_TOPIC = "scores"


def same_scores(settings: Settings, model: str, version: str, decided_at: int) -> dict[str, int]:
    """Compare what a version says since a decision with what it said before, of the same events.

    Returns `subjects` scored since, how many of them were `known` before at the same event time (the version
    scored in shadow meanwhile, or was champion), and how many of those are the `same`: score, every output and
    every input, as float bits.
    """
    decoder = Decoder.of_topic(_TOPIC, Registry(settings.registry).schema)
    before: dict[tuple[str, int], dict[str, Any]] = {}
    since: dict[str, dict[str, Any]] = {}
    whole = WholeTopic(settings.kafka, _TOPIC, "dealeriq-again")
    try:
        for message in whole.records():
            each = decoder.decode(message.value())
            if (each["model"], each["model_version"]) != (model, version):
                continue
            if each["decided_at"] == decided_at:
                since[each["subject_id"]] = each
            else:
                before[each["subject_id"], each["event_time"]] = each
    finally:
        whole.close()
    pairs = [
        (before[name, each["event_time"]], each)
        for name, each in since.items()
        if (name, each["event_time"]) in before
    ]
    same = sum(all(a[part] == b[part] for part in ("score", "outputs", "features")) for a, b in pairs)
    return {"subjects": len(since), "known": len(pairs), "same": same}
