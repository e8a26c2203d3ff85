"""What a text says, read from its vector: intent, sentiment and urgency, by labelled examples.

The examples are data (`intents.toml`, `tone.toml`). Nothing is trained, so a new example acts at once and a
reading can be explained by naming the examples nearest to the text.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from xxhash import xxh3_128_digest

from models.text import Encoder
from schemas.errors import DealerIQError

__all__ = ["ExamplesError", "Reader", "Reading"]

OTHER = "other"
_HERE = Path(__file__).parent


class ExamplesError(DealerIQError):
    """A file of labelled examples is not as it must be."""

    remedy = "Compare it with streams/agents/intents.toml and tone.toml as they came."
    exit_code = 3


class Reading(NamedTuple):
    """What one text says.

    `intent_score` is the cosine to the nearest example, also where the intent is "other"; `sentiment` from -1
    (angry) to 1 (delighted); `urgency` from 0 (can wait) to 1 (now).
    """

    intent: str
    intent_score: float
    sentiment: float
    urgency: float


@dataclass(frozen=True)
class _Tone:
    """Kernel regression on the sphere: the mean of labelled values, each weighted by how near it is."""

    vectors: np.ndarray[Any, np.dtype[np.float32]]
    values: np.ndarray[Any, np.dtype[np.float64]]
    temperature: float
    neutral: float

    def of(self, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        weights = np.exp((vectors @ self.vectors.T - self.neutral).astype(np.float64) / self.temperature)
        found: np.ndarray[Any, np.dtype[np.float64]] = weights @ self.values / (weights.sum(axis=1) + 1.0)
        return found


class Reader:
    """Reads texts with one encoder and one set of examples; keeps the newest `remembered` distinct readings.

    `version` names encoder and examples: the same version reads the same in the same text.
    Raises ExamplesError.
    """

    def __init__(self, encoder: Encoder, remembered: int = 20_000, folder: Path = _HERE) -> None:
        intents, tone = _load(folder / "intents.toml"), _load(folder / "tone.toml")
        self.encoder = encoder
        self.version = f"{encoder.identity}+{_fingerprint(intents, tone)}"
        self.hits = self.misses = 0
        self._remembered = remembered
        self._readings: OrderedDict[bytes, Reading] = OrderedDict()
        try:
            pairs = [(name, text) for name, texts in intents["examples"].items() for text in texts]
            self._names = [name for name, _ in pairs]
            self._threshold = float(intents["threshold"])
            self._vectors = encoder.encode([text for _, text in pairs])
            self._sentiment = self._tone(tone["sentiment"])
            self._urgency = self._tone(tone["urgency"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExamplesError(f"labelled examples in {folder} lack or misname {error}") from error

    @property
    def intents(self) -> list[str]:
        """Every intent that a text may get, "other" last."""
        return [*dict.fromkeys(self._names), OTHER]

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Return a reading for each text, in order. A text that comes again costs a look-up."""
        keys = [xxh3_128_digest(text.encode(errors="replace")) for text in texts]
        found: dict[bytes, Reading] = {}
        fresh: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key in found or key in fresh:
                continue
            known = self._readings.get(key)
            if known is None:
                fresh[key] = text
            else:
                found[key] = known
                self._readings.move_to_end(key)
        self.misses += len(fresh)
        self.hits += len(keys) - len(fresh)
        if fresh:
            found.update(zip(fresh, self._read(list(fresh.values())), strict=True))
            for key in fresh:
                self._readings[key] = found[key]
            while len(self._readings) > self._remembered:
                self._readings.popitem(last=False)
        return [found[key] for key in keys]

    def _read(self, texts: list[str]) -> list[Reading]:
        vectors = self.encoder.encode(texts)
        cosines = vectors @ self._vectors.T
        nearest = cosines.argmax(axis=1)
        scores = np.clip(cosines[np.arange(len(texts)), nearest], -1, 1)
        sentiment = np.clip(self._sentiment.of(vectors), -1, 1)
        urgency = np.clip(self._urgency.of(vectors), 0, 1)
        return [
            Reading(
                self._names[at] if score >= self._threshold else OTHER, float(score), float(mood), float(haste)
            )
            for at, score, mood, haste in zip(nearest, scores, sentiment, urgency, strict=True)
        ]

    def _tone(self, data: dict[str, Any]) -> _Tone:
        pairs = [(float(each["value"]), text) for each in data["examples"] for text in each["texts"]]
        return _Tone(
            self.encoder.encode([text for _, text in pairs]),
            np.array([value for value, _ in pairs]),
            float(data["temperature"]),
            float(data["neutral"]),
        )


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExamplesError(f"{path} cannot be read: {error}") from error


def _fingerprint(*examples: dict[str, Any]) -> str:
    """Of the content, not of the file: a comment changes no reading."""
    return hashlib.sha256(repr(examples).encode()).hexdigest()[:8]
