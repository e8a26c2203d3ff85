"""Keeping up with the lifecycle of models."""

from __future__ import annotations

import threading
from collections.abc import Callable

from connectors.log import get_logger
from models.lifecycle import Lifecycle
from schemas.errors import DealerIQError
from streams.metrics import StageMeters

__all__ = ["follow"]

_log = get_logger(__name__)


def follow(
    refresh: Callable[[Lifecycle], bool], catch_up: Callable[[], Lifecycle], every_s: float,
    stop: threading.Event, meters: StageMeters, changed: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Give `refresh` the registry every `every_s` until `stop`; `changed` is called where it returns true.

    `catch_up` reads the log to its end and returns the registry; a broker that is away is tried again.
    """
    while not stop.is_set():
        try:
            if refresh(catch_up()):
                changed()
        except DealerIQError as error:
            meters.error(error)
            _log.warning("the lifecycle of models cannot be read; what is served stays", error=error.told)
        stop.wait(every_s)
