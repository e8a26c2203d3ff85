"""Chunks: what of a text is encoded together, and where it stands in the original.

A chunk never crosses a heading. A paragraph of some length is a chunk of its own, short ones that follow each
other share one, and a long one is cut between sentences, the last sentence repeated at the head of the next
chunk. So an edit reaches the chunks of its own paragraph, or its own run of short ones, and no others.

A chunk is named by its content: its id is a hash of the owner, the cleaned text and, where an owner says the
same thing twice, which time this is. What moved within a document keeps its id, and so its vector.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from schemas.errors import ContractError
from schemas.ids import event_id

__all__ = [
    "CHUNKER",
    "Chunk",
    "NoTextError",
    "chunk_document",
    "chunk_text",
    "fingerprint",
    "whole_fingerprint",
]

CHUNKER = "structure-1"
"""Version of what this module does: another one makes every fingerprint new."""

_SOLID = 300  # a paragraph of this many characters is a chunk of its own
_MOST = 900  # about 200 tokens: what a small sentence encoder reads well
_OVERLAP = 200  # the longest sentence that is repeated at the head of the next chunk
_CONTEXT = 120  # of title and heading, in front of each chunk of a document
_BINARY = 0.1  # share of characters that no text has

_HEADING = re.compile(r"[ ]{0,3}#{1,6}[ \t]+(.+?)[ \t#]*$")
_UNDERLINE = re.compile(r"[ ]{0,3}(=+|-{3,})[ \t]*$")
_SENTENCE = re.compile(r"[.!?…。！？]+[\"'”’)\]]*\s+|\n\s*(?=[-*•\d])")
_SPACE = re.compile(r"\s")
_NEVER = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f�￾￿]")


class NoTextError(ContractError):
    """There is nothing to search in a record: no letter and no digit, or bytes that are no text."""

    remedy = "Give it a text at its source; a record that shall not be found has `deleted` set, or a tombstone."


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an owner's text. `start` and `end` are character offsets into the original, end exclusive.

    `text` is what is encoded: cleaned, with the document's title and heading in front.
    """

    id: str
    number: int
    text: str
    start: int
    end: int


def fingerprint(text: str, encoder: str) -> str:
    """Return what decides whether a chunk must be encoded: a hash of text, chunker and encoder identity."""
    return event_id("embedding", text, CHUNKER, encoder)


def whole_fingerprint(chunks: Iterable[str], encoder: str) -> str:
    """Return the fingerprint of all of an owner's chunks together, given their ids in any order."""
    return event_id("embeddings", CHUNKER, encoder, *sorted(chunks))


def chunk_text(owner: str, text: str) -> list[Chunk]:
    """Return a short text as one chunk. Raises NoTextError."""
    cleaned = _clean(text)
    _require_text(owner, text, cleaned)
    return [Chunk(_name(owner, cleaned, 0), 0, cleaned, 0, len(text))]


def chunk_document(owner: str, title: str, text: str) -> list[Chunk]:
    """Return the chunks of a document in the order of its text. Raises NoTextError.

    >>> [each.text for each in chunk_document("document/1", "Returns", "# Tyres\\n\\nWithin 30 days.")]
    ['Returns, Tyres: Within 30 days.']
    """
    _require_text(owner, text, _clean(text))
    chunks: list[Chunk] = []
    times: Counter[str] = Counter()
    for heading, start, end in _pieces(text):
        body = _clean(text[start:end])
        if not any(map(str.isalnum, body)):
            continue
        context = ", ".join(part for part in (_clean(title), _clean(heading)) if part)[:_CONTEXT]
        cleaned = f"{context}: {body}" if context else body
        chunks.append(Chunk(_name(owner, cleaned, times[cleaned]), len(chunks), cleaned, start, end))
        times[cleaned] += 1
    if not chunks:
        raise NoTextError(f"{owner} has headings and no text")
    return chunks


def _name(owner: str, cleaned: str, occurrence: int) -> str:
    return event_id("chunk", owner, cleaned, occurrence)


def _clean(text: str) -> str:
    """One spelling of each character, one space between words, nothing that cannot be seen."""
    return " ".join(unicodedata.normalize("NFC", _NEVER.sub(" ", text)).split())


def _require_text(owner: str, text: str, cleaned: str) -> None:
    if not any(map(str.isalnum, cleaned)):
        raise NoTextError(f"{owner} has no text: {len(text)} characters, none a letter or digit")
    odd = len(_NEVER.findall(text))
    if odd > _BINARY * len(text):
        raise NoTextError(f"{owner} is no text: {odd} of {len(text)} characters are control characters")


def _pieces(text: str) -> Iterator[tuple[str, int, int]]:
    """(heading, start, end) of what becomes one chunk each."""
    pending: tuple[str, int, int] | None = None
    for heading, start, end in _paragraphs(text):
        if pending is not None and (pending[0] != heading or end - start >= _SOLID or end - pending[1] > _MOST):
            yield pending
            pending = None
        if end - start < _SOLID:
            pending = (heading, start if pending is None else pending[1], end)
        else:
            for first, last in _windows(text, start, end):
                yield heading, first, last
    if pending is not None:
        yield pending


def _paragraphs(text: str) -> Iterator[tuple[str, int, int]]:
    """(heading above it, start, end) of each paragraph: lines up to an empty one or a heading."""
    heading, start, at = "", None, 0
    last = 0
    for line in text.splitlines(keepends=True):
        bare = line.rstrip()
        marked = _HEADING.match(bare)
        underlined = start is not None and _UNDERLINE.match(bare) and "\n" not in text[start:last].rstrip("\n")
        if underlined and start is not None and last - start <= _CONTEXT:
            heading, start = text[start:last].strip(), None
        elif not bare or marked:
            if start is not None:
                yield heading, start, last
                start = None
            if marked:
                heading = marked.group(1)
        else:
            if start is None:
                start = at + len(line) - len(line.lstrip())
            last = at + len(bare)
        at += len(line)
    if start is not None:
        yield heading, start, last


def _windows(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a paragraph between sentences into pieces of at most `_MOST` characters, with overlap."""
    if end - start <= _MOST:
        yield start, end
        return
    sentences = list(_sentences(text, start, end))
    first = 0
    while first < len(sentences):
        last = first
        while last + 1 < len(sentences) and sentences[last + 1][1] - sentences[first][0] <= _MOST:
            last += 1
        yield sentences[first][0], sentences[last][1]
        if last + 1 == len(sentences):
            return
        repeated = sentences[last][1] - sentences[last][0]
        fits = sentences[last + 1][1] - sentences[last][0] <= _MOST
        first = last if last > first and repeated <= _OVERLAP and fits else last + 1


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Sentences, and where one is longer than a chunk may be, its parts at the last space that fits."""
    bounds = [start, *(found.end() for found in _SENTENCE.finditer(text, start, end)), end]
    for low, high in pairwise(bounds):
        while high - low > _MOST:
            spaces = [found.start() for found in _SPACE.finditer(text, low + _MOST // 2, low + _MOST)]
            cut = spaces[-1] if spaces else low + _MOST
            yield low, cut
            low = cut
        stop = high
        while stop > low and text[stop - 1].isspace():
            stop -= 1
        if stop > low:
            yield low, stop
