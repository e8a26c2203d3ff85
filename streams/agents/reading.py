"""What a text says, read from its vector: intent, sentiment and urgency, by labelled examples.

The examples are data (`intents.toml`, `tone.toml`). Nothing is trained, so a new example acts at once and a
reading can be explained by naming the examples nearest to the text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from xxhash import xxh3_128_digest

from models.text import Encoder
from models.text.examples import FOLDER, OTHER, ExamplesError, fingerprint, intents, read_examples
from streams.agents.intent_head import IntentHead

__all__ = ["ExamplesError", "Reader", "Reading"]


class Reading(NamedTuple):
    """What one text says.

    `intent_score` is the cosine to the nearest example, also where the intent is "other", or the probability
    that a trained model gives; `sentiment` from -1 (angry) to 1 (delighted); `urgency` from 0 (can wait) to 1
    (now).
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

    `head` returns the model that tells intents now; None, or without it: the nearest example does. `version`
    names encoder, examples and model: the same version reads the same in the same text. Raises ExamplesError.
    """

    def __init__(
        self,
        encoder: Encoder,
        remembered: int = 20_000,
        folder: Path = FOLDER,
        head: Callable[[], IntentHead | None] = lambda: None,
    ) -> None:
        known, tone = intents(folder), read_examples(folder / "tone.toml")
        self.encoder = encoder
        self._examples = f"{encoder.identity}+{fingerprint(read_examples(folder / 'intents.toml'), tone)}"
        self._ask, self._head = head, head()
        self.hits = self.misses = 0
        self._remembered = remembered
        self._readings: OrderedDict[bytes, Reading] = OrderedDict()
        try:
            self._names, self._threshold = known.names, known.threshold
            self._vectors = encoder.encode(known.texts)
            self._sentiment = self._tone(tone["sentiment"])
            self._urgency = self._tone(tone["urgency"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExamplesError(f"labelled examples in {folder} lack or misname {error}") from error

    @property
    def intents(self) -> list[str]:
        """Every intent that a text may get, "other" last."""
        return [*dict.fromkeys(self._names), OTHER]

    @property
    def version(self) -> str:
        """What the last texts were read with."""
        return self._examples if self._head is None else f"{self._examples}+{self._head.version}"

    @property
    def reads_with(self) -> str:
        """The encoder, and the model that told the intents of the last texts, as a record names them."""
        identity = self.encoder.identity
        return identity if self._head is None else f"{identity}+{self._head.name}@{self._head.version}"

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Return a reading for each text, in order. A text that comes again costs a look-up."""
        self._swap()
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

    def _swap(self) -> None:
        """Take the model of now, between two batches; what another one read is forgotten."""
        now = self._ask()
        if now is not self._head:
            self._head = now
            self._readings.clear()

    def _read(self, texts: list[str]) -> list[Reading]:
        vectors = self.encoder.encode(texts)
        named = self._nearest(vectors) if self._head is None else self._head.read(vectors)
        sentiment = np.clip(self._sentiment.of(vectors), -1, 1)
        urgency = np.clip(self._urgency.of(vectors), 0, 1)
        return [
            Reading(name, score, float(mood), float(haste))
            for (name, score), mood, haste in zip(named, sentiment, urgency, strict=True)
        ]

    def _nearest(self, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> list[tuple[str, float]]:
        cosines = vectors @ self._vectors.T
        nearest = cosines.argmax(axis=1)
        scores = np.clip(cosines[np.arange(len(vectors)), nearest], -1, 1)
        return [
            (self._names[at] if score >= self._threshold else OTHER, float(score))
            for at, score in zip(nearest, scores, strict=True)
        ]

    def _tone(self, data: dict[str, Any]) -> _Tone:
        pairs = [(float(each["value"]), text) for each in data["examples"] for text in each["texts"]]
        return _Tone(
            self.encoder.encode([text for _, text in pairs]),
            np.array([value for value, _ in pairs]),
            float(data["temperature"]),
            float(data["neutral"]),
        )
