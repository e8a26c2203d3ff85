"""What each watch of the running system does: look, be patient with what is away, rest when nothing moves."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from schemas.errors import DealerIQError
from streams.metrics import StageMeters

__all__ = ["Stillness", "keep_looking"]

_LOOKS = 3  # the lake may follow the topic a look later


class Stillness:
    """Tells whether something moved since the last looks."""

    def __init__(self) -> None:
        self._seen: object = None
        self._still = 0

    def moved(self, now: object) -> bool:
        """Whether `now` is not what the last few looks have seen."""
        self._still = self._still + 1 if now == self._seen else 0
        self._seen = now
        return self._still < _LOOKS


def keep_looking(
    look: Callable[[], object], every_s: float, meters: StageMeters, stop: threading.Event
) -> None:
    """Look every `every_s` until `stop`; what is away is told, counted, and tried again the next time."""
    while not stop.is_set():
        try:
            with meters.batch():
                look()
        except DealerIQError as error:
            meters.error(error)
            if not stop.is_set():
                print(error.told, file=sys.stderr, flush=True)
        stop.wait(every_s)
