"""The trained model of intents that the lifecycle names, beside the encoder whose vectors it reads."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import structlog

from models.lifecycle import Lifecycle
from models.runtime import RuntimeSettings, Session, open_registered
from models.text import Encoder
from schemas.errors import DealerIQError
from streams.metrics import StageMeters
from streams.scoring.served import FALLBACK, tell_swap

__all__ = ["MODEL", "IntentHead", "IntentHeads"]

MODEL = "chat_intent"
_log = structlog.get_logger(__name__)
_AGAIN_S = 30.0  # until a version that did not load is tried again: its folder may be on its way
Vectors = np.ndarray[Any, np.dtype[np.float32]]


class IntentHead:
    """One version, ready to read vectors of the encoder that it was trained with."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.name, self.version = session.name, session.version
        self._intents = session.description.outputs[:-1]

    def read(self, vectors: Vectors) -> list[tuple[str, float]]:
        """Return each vector's intent and its probability."""
        answers = self._session.run(vectors)
        named = answers[:, :-1].argmax(axis=1)
        return [
            (self._intents[at], float(min(score, 1.0)))
            for at, score in zip(named, answers[np.arange(len(named)), named], strict=True)
        ]


class IntentHeads:
    """Follows the lifecycle: `current` is the champion, None where there is none for this encoder.

    A version that cannot be loaded, or that was trained with another encoder, takes nobody's place.
    """

    def __init__(self, encoder: Encoder, settings: RuntimeSettings | None = None) -> None:
        self._columns = [f"@{encoder.identity}#{at}" for at in range(encoder.dimension)]
        self._settings = settings or RuntimeSettings()
        self._meters = StageMeters("chat-agent")
        self._lock = threading.Lock()
        self._current: IntentHead | None = None
        self._refused, self._again = "", 0.0

    def current(self) -> IntentHead | None:
        """Return what reads now."""
        return self._current

    def refresh(self, registry: Lifecycle) -> bool:
        """Take what the registry names; return whether that is another version. A model's errors are logged."""
        with self._lock:
            state = registry.state(MODEL)
            held = None if self._current is None else self._current.version
            waits = state.champion == self._refused and time.monotonic() < self._again
            if state.champion == held or waits:
                return False
            if state.champion is None:
                self._current = None
                return True
            try:
                session = open_registered(state, state.champion, self._settings)
                columns = [name for each in session.description.inputs for name in each.columns()]
                if columns != self._columns:
                    raise OtherEncoderError(f"{MODEL} {state.champion} reads vectors of {columns[:1]}")
            except DealerIQError as error:
                self._refused, self._again = state.champion, time.monotonic() + _AGAIN_S
                FALLBACK.labels(MODEL).set(1)
                self._meters.error(error)
                _log.error("the model of intents cannot be served; what was goes on", error=error.told)
                return False
            tell_swap(MODEL, held, state.champion)
            self._refused = ""
            self._current = IntentHead(session)  # the batch that runs keeps what it began with
            return True


class OtherEncoderError(DealerIQError):
    """A model was trained with vectors of another encoder than the one that runs here."""

    remedy = "Train it again with this encoder (`dealeriq models train chat_intent`), or set text.model back."
    exit_code = 5
