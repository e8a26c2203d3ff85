"""The topics that hold vectors."""

from __future__ import annotations

__all__ = ["TOPICS"]

TOPICS = ("embeddings",)
