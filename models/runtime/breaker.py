"""A circuit breaker: who fails often is left alone for a while, then asked once.

The three states of M. Nygard, "Release It!" (2007): closed, open, half-open. The packages for it hold a lock
while they call, so that a slow endpoint would be asked by one thread at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

__all__ = ["Breaker"]


class Breaker:
    """Opens after `failures` in a row, for `retry_s`; then one call may try. Threads may share it.

    Whoever was allowed says `succeeded` or `failed` afterwards, exactly once. `clock` is monotonic, s.
    """

    def __init__(self, failures: int, retry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._retry_s, self._clock = failures, retry_s, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Closed: calls go through. Open: none does. Half-open: one is on its way to find out."""
        with self._lock:
            if self._opened is None:
                return "closed"
            return "half-open" if self._trying else "open"

    def allows(self) -> bool:
        """Whether to call now."""
        with self._lock:
            if self._opened is None:
                return True
            if self._trying or self._clock() - self._opened < self._retry_s:
                return False
            self._trying = True
            return True

    def succeeded(self) -> None:
        """The call was answered: closed from now on."""
        with self._lock:
            self._failures, self._opened, self._trying = 0, None, False

    def failed(self) -> None:
        """The call was not answered. A call that began before it opened changes nothing."""
        with self._lock:
            self._failures += 1
            if self._trying or (self._opened is None and self._failures >= self._most):
                self._opened, self._trying = self._clock(), False
