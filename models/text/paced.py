"""An encoder within a budget: so many texts a minute, however many are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from models.encoding import Encoder, EncoderUnavailableError, Vectors

__all__ = ["PacedEncoder"]

_PART_S = 2.0


class PacedEncoder(Encoder):
    """Encodes with `inner`, at most `per_minute` texts a minute, in parts of some seconds. One thread at a
    time.

    `stop` ends the waiting: what is asked for then raises EncoderUnavailableError, and is asked for again
    later.
    """

    def __init__(
        self, inner: Encoder, per_minute: int, stop: threading.Event | None = None,
        *, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._inner, self._clock = inner, clock
        self._stop = stop or threading.Event()
        self._rate = per_minute / 60
        self._free_at = 0.0
        self.name, self.version = inner.name, inner.version
        self.dimension, self.max_tokens = inner.dimension, inner.max_tokens
        self.most = max(1, int(self._rate * _PART_S))

    def encode(self, batch: Sequence[str]) -> Vectors:
        """Return what `inner` does, no sooner than the budget allows."""
        parts = []
        for start in range(0, len(batch), self.most):
            part = batch[start : start + self.most]
            now = self._clock()
            if self._free_at > now and self._stop.wait(self._free_at - now):
                raise EncoderUnavailableError("the process is stopping")
            self._free_at = max(now, self._free_at) + len(part) / self._rate
            parts.append(self._inner.encode(part))
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)
