"""Labelled examples of what people write: `intents.toml` and `tone.toml`, data that anyone can add to."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import DealerIQError

__all__ = ["FOLDER", "OTHER", "ExamplesError", "Intents", "fingerprint", "intents", "read_examples"]

FOLDER = Path(__file__).parent
OTHER = "other"
"""The intent of a text that is near no example."""


class ExamplesError(DealerIQError):
    """A file of labelled examples is not as it must be."""

    remedy = "Compare it with models/text/intents.toml and tone.toml as they came."
    exit_code = 3


@dataclass(frozen=True)
class Intents:
    """Texts with their intents; a message with none nearer than `threshold` (cosine) is "other"."""

    texts: tuple[str, ...]
    names: tuple[str, ...]
    threshold: float

    @property
    def all(self) -> tuple[str, ...]:
        """Every intent that a text may get, "other" last."""
        return (*dict.fromkeys(self.names), OTHER)


def intents(folder: Path = FOLDER) -> Intents:
    """Return the examples of intents. Raises ExamplesError."""
    given = read_examples(folder / "intents.toml")
    try:
        pairs = [(name, text) for name, texts in given["examples"].items() for text in texts]
        threshold = float(given["threshold"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExamplesError(f"labelled examples in {folder} lack or misname {error}") from error
    return Intents(tuple(text for _, text in pairs), tuple(name for name, _ in pairs), threshold)


def read_examples(path: Path) -> dict[str, Any]:
    """Return what a file of examples holds. Raises ExamplesError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExamplesError(f"{path} cannot be read: {error}") from error


def fingerprint(*examples: dict[str, Any]) -> str:
    """Return a hash of the content, not of the file: a comment changes no reading."""
    return hashlib.sha256(repr(examples).encode()).hexdigest()[:8]
