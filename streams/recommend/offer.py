"""Offering the model that ranks: the champion's file, in Redis beside the counts that it reads."""

from __future__ import annotations

import threading
import time
from typing import Any

import redis.exceptions

from connectors.log import get_logger
from models.artifact import ArtifactError, load
from models.lifecycle import Lifecycle
from models.recommend.settings import RecommendSettings
from models.runtime import folder_of
from schemas.errors import DealerIQError
from streams.metrics import StageMeters
from streams.recommend.ranker import FIELDS, MODEL, checked
from streams.recommend.store import Keys
from streams.scoring.served import FALLBACK, tell_swap

__all__ = ["OtherSettingsError", "RankerOffer", "StoreAwayError"]

_AGAIN_S = 30.0  # until a version that was refused is looked at again: its folder may be on its way
_log = get_logger(__name__)


class StoreAwayError(DealerIQError):
    """Redis cannot be written; the ranker is offered when it can."""

    remedy = "See that Redis runs at the address that `dealeriq config` shows."
    exit_code = 4


class OtherSettingsError(DealerIQError):
    """The model was trained on counts that are made otherwise than here."""

    remedy = "Set recommend.half_life_days and recommend.stocked_days back, or roll the model back."
    exit_code = 5


class RankerOffer:
    """Keeps the champion's file in Redis. What cannot be served takes nobody's place, and is logged."""

    def __init__(self, redis_: Any, project: str, settings: RecommendSettings | None = None) -> None:
        self._redis, self._key = redis_, Keys(project).ranker
        self._settings = settings or RecommendSettings()
        self._meters = StageMeters("recommend-view")
        self._lock = threading.Lock()
        self._refused, self._again = "", 0.0

    def refresh(self, registry: Lifecycle) -> bool:
        """Offer what the registry names; return whether that is another version. Raises StoreAwayError."""
        with self._lock:
            try:
                return self._refresh(registry)
            except redis.exceptions.RedisError as error:
                raise StoreAwayError(f"the ranker cannot be offered: {error}") from error

    def _refresh(self, registry: Lifecycle) -> bool:
        state = registry.state(MODEL)
        held = (self._redis.hget(self._key, "version") or b"").decode() or None
        waits = state.champion == self._refused and time.monotonic() < self._again
        if state.champion == held or waits:
            return False
        if state.champion is None:  # of another log than this one
            self._redis.delete(self._key)
            return True
        known = state.version(state.champion)
        try:
            _same(self._settings)
            description, onnx = load(folder_of(known.artifact))
            if description.version != state.champion or known.sha256 not in ("", description.sha256):
                raise ArtifactError(f"{known.artifact} holds something else than was registered")
            checked(description)
        except DealerIQError as error:
            self._refused, self._again = state.champion, time.monotonic() + _AGAIN_S
            FALLBACK.labels(MODEL).set(1)
            self._meters.error(error)
            _log.error("the ranking model cannot be served; what ranks goes on", error=error.told)
            return False
        told = (description.version.encode(), description.to_json().encode(), onnx)
        self._redis.hset(self._key, mapping=dict(zip(FIELDS, told, strict=True)))
        tell_swap(MODEL, held, description.version)
        self._refused = ""
        return True


def _same(settings: RecommendSettings) -> None:
    usual = RecommendSettings()
    for name in ("half_life_days", "stocked_days"):
        here, there = getattr(settings, name), getattr(usual, name)
        if here != there:
            raise OtherSettingsError(f"recommend.{name} is {here:g}, and {MODEL} is trained with {there:g}")
