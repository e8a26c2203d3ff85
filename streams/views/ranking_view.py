"""The ranking view: feedback about hits of searches, folded into weights in memory.

It keeps no store and so no position: each start reads the whole topic again. Whatever the weights are, the log
gives them: that is what makes them the same on every machine, and a replay their proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions

from connectors.registry import RegistryUnavailableError
from models.search.weights import Weights
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.metrics import StageMeters
from streams.views.view import Position, View

__all__ = ["RankingView", "since_key"]

_TOPIC = "feedback"
_FUTURE_MS = 86_400_000


def since_key(project: str) -> str:
    """Return the key of the moment, ms since the epoch, before which feedback does not count."""
    return f"{project}:ranking:since"


class RankingView(View):
    """Folds feedback that counts: later than the last reset, and not dated a day after it was produced.

    Outcomes that are counted: `folded`, `other` (about something else), `reset` (before it), `future`. What
    cannot be read is the label view's dead letter.

    Args:
        weights: what is folded into.
        fetch_schema: schema of a registry id (`Registry.schema`).
        since: returns when feedback was last reset, ms since the epoch; asked before each batch.
    """

    name = "ranking-view"
    topics = (_TOPIC,)
    retried = (redis.exceptions.RedisError, RegistryUnavailableError)

    def __init__(
        self, weights: Weights, fetch_schema: Callable[[int], Any], since: Callable[[], int] = lambda: 0
    ) -> None:
        self._weights, self._since = weights, since
        self._decoder = Decoder.of_topic(_TOPIC, fetch_schema)
        self._reset_ms = 0
        self._meters = StageMeters(self.name)

    def positions(self) -> Position:
        """Nothing is held: the topic is read from its beginning."""
        self._reset_ms = self._since()
        self._weights.clear()
        return {}

    def apply(self, messages: Sequence[Any]) -> None:
        """Fold feedback."""
        self.tick()
        counted = {"folded": 0, "other": 0, "reset": 0, "future": 0}
        for message in messages:
            if message.value() is None:
                continue
            try:
                record = valid(_TOPIC, self._decoder.decode(message.value()))
            except ContractError:
                self._meters.count("refused")
                continue
            if record["event_time"] <= self._reset_ms:
                outcome = "reset"
            elif record["event_time"] > message.timestamp()[1] + _FUTURE_MS:
                outcome = "future"
            else:
                outcome = "folded" if self._weights.fold(record) else "other"
            counted[outcome] += 1
        for outcome, records in counted.items():
            if records:
                self._meters.count(outcome, records)

    def tick(self) -> None:
        """Forget what was said before a reset."""
        since = self._since()
        if since > self._reset_ms:
            self._reset_ms = since
            self._weights.clear()
