"""What every encoder of pictures promises."""

from __future__ import annotations

from abc import abstractmethod

from models.encoding import Encoder, Vectors

__all__ = ["ImageEncoder", "Pixels"]

Pixels = Vectors
"""One picture as its encoder takes it: float32 [3, height, width]."""


class ImageEncoder(Encoder[Pixels]):
    """Turns pictures into vectors: a file is read alone, and may be refused; pixels go in batches."""

    @abstractmethod
    def read(self, content: bytes) -> Pixels:
        """Return a file's pixels. Raises ImageRefusedError."""
