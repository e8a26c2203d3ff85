"""What a text says, read from its vector: intent, sentiment and urgency, by labelled examples.

The examples are data (`intents.toml`, `tone.toml`). Nothing is trained, so a new example acts at once and a
reading can be explained by naming the examples nearest to the text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from models.text import Encoder
from models.text.examples import FOLDER, OTHER, ExamplesError, fingerprint, intents, read_examples
from models.text.tone import TONES, Tone
from streams.agents.heads import IntentHead, ToneHead

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


class Reader:
    """Reads texts with one encoder and one set of examples; keeps the newest `remembered` distinct readings.

    `head` returns the model that tells intents now; None, or without it: the nearest example does. `tones` are
    the same of `sentiment` and `urgency`. `version` names encoder, examples and models: the same version reads
    the same in the same text. Raises ExamplesError.
    """

    def __init__(
        self,
        encoder: Encoder,
        remembered: int = 20_000,
        folder: Path = FOLDER,
        head: Callable[[], IntentHead | None] = lambda: None,
        tones: Mapping[str, Callable[[], ToneHead | None]] | None = None,
    ) -> None:
        known, tone = intents(folder), read_examples(folder / "tone.toml")
        self.encoder = encoder
        self._examples = f"{encoder.identity}+{fingerprint(read_examples(folder / 'intents.toml'), tone)}"
        self._ask, self._ask_tones = head, tones or {}
        self._head, self._tone_heads = self._served()
        self.hits = self.misses = 0
        self._remembered = remembered
        self._readings: OrderedDict[bytes, Reading] = OrderedDict()
        try:
            self._names, self._threshold = known.names, known.threshold
            self._vectors = encoder.encode(known.texts)
            self._tones = {name: Tone.of(tone[name]) for name in TONES}
            self._shown = {name: encoder.encode(each.texts) for name, each in self._tones.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExamplesError(f"labelled examples in {folder} lack or misname {error}") from error

    @property
    def intents(self) -> list[str]:
        """Every intent that a text may get, "other" last."""
        return [*dict.fromkeys(self._names), OTHER]

    @property
    def version(self) -> str:
        """What the last texts were read with."""
        return "+".join([self._examples, *(each.version for each in self._heads)])

    @property
    def reads_with(self) -> str:
        """The encoder, and the models that read the last texts, as a record names them."""
        named = (f"{each.name}@{each.version}" for each in self._heads)
        return "+".join([self.encoder.identity, *named])

    @property
    def _heads(self) -> list[IntentHead | ToneHead]:
        return [*([] if self._head is None else [self._head]), *self._tone_heads.values()]

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

    def _served(self) -> tuple[IntentHead | None, dict[str, ToneHead]]:
        asked = ((name, ask()) for name, ask in self._ask_tones.items())
        return self._ask(), {name: each for name, each in asked if each is not None}

    def _swap(self) -> None:
        """Take the models of now, between two batches; what others read is forgotten."""
        now = self._served()
        if now != (self._head, self._tone_heads):
            self._head, self._tone_heads = now
            self._readings.clear()

    def _read(self, texts: list[str]) -> list[Reading]:
        vectors = self.encoder.encode(texts)
        named = self._nearest(vectors) if self._head is None else self._head.read(vectors)
        sentiment, urgency = (self._said(name, vectors) for name in ("sentiment", "urgency"))
        return [
            Reading(name, score, float(mood), float(haste))
            for (name, score), mood, haste in zip(named, sentiment, urgency, strict=True)
        ]

    def _said(self, tone: str, vectors: NDArray[np.float32]) -> NDArray[Any]:
        head = self._tone_heads.get(tone)
        found = self._tones[tone].read(vectors, self._shown[tone]) if head is None else head.read(vectors)
        return np.clip(found, *TONES[tone])

    def _nearest(self, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> list[tuple[str, float]]:
        cosines = vectors @ self._vectors.T
        nearest = cosines.argmax(axis=1)
        scores = np.clip(cosines[np.arange(len(vectors)), nearest], -1, 1)
        return [
            (self._names[at] if score >= self._threshold else OTHER, float(score))
            for at, score in zip(nearest, scores, strict=True)
        ]
