"""Are the scores after a rollback those of before it, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.settings import Settings
from models.runtime import Session
from schemas.codec import Decoder

__all__ = ["same_answers", "same_scores"]

_TOPIC = "scores"


def same_scores(settings: Settings, model: str, version: str, artifact: str, decided_at: int) -> dict[str, int]:
    """Compare what a version says since a decision with what it said before.

    Returns `subjects` scored since; `known`, how many scores there are of before, together with those of the
    same subject, event and inputs since; and how many of those are the `same`, as float bits. A score of before
    is the same where the version that serves again answers its recorded inputs with its recorded outputs.
    Inputs of one event differ where the dealer ordered something else within the hour: those are no pair.
    """
    decoder = Decoder.of_topic(_TOPIC, Registry(settings.registry).schema)
    before: list[dict[str, Any]] = []
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
                before.append(each)
    finally:
        whole.close()
    pairs = [
        (each, now)
        for each in before
        if (now := since.get(each["subject_id"])) is not None
        and (now["event_time"], now["features"]) == (each["event_time"], each["features"])
    ]
    same = sum((a["score"], a["outputs"]) == (b["score"], b["outputs"]) for a, b in pairs)
    same += same_answers(Session(Path(artifact)), before)
    return {"subjects": len(since), "known": len(before) + len(pairs), "same": same}


def same_answers(session: Session, scores: list[dict[str, Any]]) -> int:
    """Return how many scores a session answers again as they are recorded, every output as float bits."""
    if not scores:
        return 0
    names = [each.name for each in session.description.inputs]
    vectors = np.array(
        [[np.nan if (each := dict(s["features"])[name]) is None else each for name in names] for s in scores],
        np.float32,
    )
    outputs = session.description.outputs
    recorded = np.array([[dict(s["outputs"])[name] for name in outputs] for s in scores], np.float64)
    return int((session.run(vectors).astype(np.float64) == recorded).all(axis=1).sum())
