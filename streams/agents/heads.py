"""The trained models of texts that the lifecycle names, beside the encoder whose vectors they read."""

from __future__ import annotations

import threading
import time
from typing import Any, Generic, TypeVar

import numpy as np

from connectors.log import get_logger
from models.lifecycle import Lifecycle
from models.runtime import RuntimeSettings, Session, open_registered
from models.text import Encoder
from schemas.errors import DealerIQError
from streams.metrics import StageMeters
from streams.scoring.served import FALLBACK, tell_swap

__all__ = ["INTENT", "SENTIMENT", "URGENCY", "Heads", "IntentHead", "ToneHead"]

INTENT, SENTIMENT, URGENCY = "chat_intent", "chat_sentiment", "chat_urgency"
_log = get_logger(__name__)
_AGAIN_S = 30.0  # until a version that did not load is tried again: its folder may be on its way
Vectors = np.ndarray[Any, np.dtype[np.float32]]


class _Head:
    """One version, ready to read vectors of the encoder that it was trained with."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.name, self.version = session.name, session.version


class IntentHead(_Head):
    """A model that tells intents."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._intents = session.description.outputs[:-1]

    def read(self, vectors: Vectors) -> list[tuple[str, float]]:
        """Return each vector's intent and its probability."""
        answers = self._session.run(vectors)
        named = answers[:, :-1].argmax(axis=1)
        return [
            (self._intents[at], float(min(score, 1.0)))
            for at, score in zip(named, answers[np.arange(len(named)), named], strict=True)
        ]


class ToneHead(_Head):
    """A model that tells a number: how a text is said."""

    def read(self, vectors: Vectors) -> Vectors:
        """Return each vector's value, within the bounds of the tone."""
        return self._session.run(vectors)[:, 0]


H = TypeVar("H", bound=_Head)


class Heads(Generic[H]):
    """Follows the lifecycle of one model: `current` is the champion, None where there is none for this encoder.

    A version that cannot be loaded, or that was trained with another encoder, takes nobody's place. `model` is
    its name, `kind` what runs a version.
    """

    def __init__(
        self, model: str, kind: type[H], encoder: Encoder, settings: RuntimeSettings | None = None
    ) -> None:
        self._model, self._kind = model, kind
        self._columns = [f"@{encoder.identity}#{at}" for at in range(encoder.dimension)]
        self._settings = settings or RuntimeSettings()
        self._meters = StageMeters("chat-agent")
        self._lock = threading.Lock()
        self._current: H | None = None
        self._refused, self._again = "", 0.0

    def current(self) -> H | None:
        """Return what reads now."""
        return self._current

    def refresh(self, registry: Lifecycle) -> bool:
        """Take what the registry names; return whether that is another version. A model's errors are logged."""
        with self._lock:
            state = registry.state(self._model)
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
                    raise OtherEncoderError(f"{self._model} {state.champion} reads vectors of {columns[:1]}")
            except DealerIQError as error:
                self._refused, self._again = state.champion, time.monotonic() + _AGAIN_S
                FALLBACK.labels(self._model).set(1)
                self._meters.error(error)
                _log.error(
                    "a model of texts cannot be served; what was goes on", model=self._model, error=error.told
                )
                return False
            tell_swap(self._model, held, state.champion)
            self._refused = ""
            self._current = self._kind(session)  # the batch that runs keeps what it began with
            return True


class OtherEncoderError(DealerIQError):
    """A model was trained with vectors of another encoder than the one that runs here."""

    remedy = "Train it again with this encoder (`dealeriq models train NAME`), or set text.model back."
    exit_code = 5
