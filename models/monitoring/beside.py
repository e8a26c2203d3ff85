"""Champion and challenger on the same live traffic: how much less loss one has, after each window."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.artifact import load
from models.monitoring.alarms import Watched
from models.monitoring.observation import Observation
from models.monitoring.scored import read_pairs
from models.monitoring.sequential import gain
from models.settings import MonitorSettings
from models.specs import spec as spec_of
from models.training.events import Stream

__all__ = ["compare"]

_DAY_MS = 86_400_000
_MONITOR = "canary"


def compare(
    stream: Stream, settings: MonitorSettings, confidence: float, champion: Watched, challenger: Watched
) -> list[Observation]:
    """Return the gain of the challenger over the champion up to each window whose outcomes are known.

    Losses are summed by dealer and window: those are the pairs. Windows that were compared before are left out.
    Raises LakeError, ArtifactError.
    """
    spec, window = spec_of(champion.model), max(1, round(settings.window_days * _DAY_MS))
    told = [load(Path(each.artifact))[0] for each in (champion, challenger)]
    begin = max(each.as_of_ms for each in told) // window * window
    pairs = read_pairs(
        stream, champion.model, champion.version, challenger.version, challenger.decided_at, window,
        begin_ms=begin, entity=spec.entity, outputs=spec.outputs,
    )  # fmt: skip
    scored = pairs.scored
    known_ms = (stream.latest_ms(spec.label.topic) or 0) - spec.label.known_after_ms
    number = scored.time // window
    last = known_ms // window  # the first window that is not whole
    numbers = np.unique(number[number < last])
    if not len(numbers):
        return []
    truth = spec.labels(scored.rows, stream)
    losses = [spec.loss(truth, answers.astype(np.float64)) for answers in (scored.answers, pairs.other)]
    many = int(scored.dealer.max()) + 1
    blocks, at = np.unique(number * many + scored.dealer, return_inverse=True)
    old, new = (np.bincount(at, each) for each in losses)
    found = []
    for each in numbers.tolist():
        end = (each + 1) * window
        if end <= challenger.done.get(_MONITOR, 0):
            continue
        upto = blocks // many <= each
        seen = gain(old[upto], new[upto], blocks[upto] % many, 1 - confidence)
        more = "less" if seen.gain > 0 else "more"
        text = (
            f"{spec.gate.metric}: {abs(100 * seen.gain):.1f} % {more} loss than {champion.version}'s "
            f"(gain {100 * seen.low:.1f} to {100 * seen.high:.1f} %) in {seen.pairs} pairs of dealer and window"
        )
        details = {"low": seen.low, "high": seen.high, "pairs": float(seen.pairs)}
        found.append(
            Observation(
                challenger.model, challenger.version, challenger.role, challenger.decided_at, _MONITOR,
                each * window, end, int((number == each).sum()),
                seen.gain if np.isfinite(seen.gain) else None, None, False, text,
                {name: float(value) for name, value in details.items() if np.isfinite(value)}, scored.last,
            )
        )  # fmt: skip
    return found
