"""The words of the index, and what a word that is not among them was meant to be.

Correction is by restricted Damerau-Levenshtein distance (insertions, deletions, substitutions, and swaps of
neighbours): one edit for words of up to six characters, two for longer ones; of several words as near, the one
that occurs most often.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from connectors.vectors.lexical import Lexical

__all__ = ["Vocabulary", "words"]

_WORD = re.compile(r"\w+", re.UNICODE)
_SHORTEST = 4  # a shorter word has too many neighbours
_REMEMBERED = 10_000


def words(text: str) -> list[tuple[str, int, int]]:
    """Return (word without case and accents, start, end) of each word of a text."""
    return [(_plain(found.group()), found.start(), found.end()) for found in _WORD.finditer(text)]


class Vocabulary:
    """Counts in how many texts each word is. Threads may share it: one tells it of texts, any may ask."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: Counter[str] = Counter()
        self._stems: Counter[int] = Counter()
        self._corrections: dict[str, str | None] = {}
        self._lexical = Lexical()
        self._lock = threading.Lock()
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """A text has come."""
        found = {word for word, _, _ in words(text)}
        with self._lock:
            fresh = found - self._texts.keys()
            self._texts.update(found)
            for word in fresh:
                self._stems.update(self._lexical.query(word).terms)
            if fresh:
                self._corrections.clear()

    def remove(self, text: str) -> None:
        """A text that came before is gone."""
        found = {word for word, _, _ in words(text)}
        with self._lock:
            self._texts.subtract(found)
            for word in found:
                if self._texts[word] <= 0:
                    del self._texts[word]
                    self._stems.subtract(self._lexical.query(word).terms)
                    self._corrections.clear()

    def correct(self, word: str) -> str | None:
        """Return the word that was meant, None where the word is known or none is near enough."""
        if word in self._texts or len(word) < _SHORTEST or not word.isalpha():
            return None
        with self._lock:
            if word not in self._corrections:
                if len(self._corrections) >= _REMEMBERED:
                    self._corrections.clear()
                self._corrections[word] = self._nearest(word)
            return self._corrections[word]

    def _nearest(self, word: str) -> str | None:
        if any(self._stems[term] > 0 for term in self._lexical.query(word).terms):
            return None  # another form of a word that the index has
        most = 1 if len(word) <= 6 else 2
        near = extract(word, self._texts.keys(), scorer=OSA.distance, score_cutoff=most, limit=None)
        best = min(
            near,
            key=lambda each: (each[1], each[0][0] != word[0], -self._texts[each[0]], each[0]),
            default=None,
        )
        return None if best is None else best[0]


def _plain(word: str) -> str:
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
