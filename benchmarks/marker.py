"""Dealers whose order lines are timed one by one, while others keep the system busy."""

from __future__ import annotations

import random
import threading
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from connectors.kafka import producer
from dealeriq.settings import Settings
from schemas.codec import Encoder

__all__ = ["Marker", "timed"]

_LONGEST_S = 120.0


class Marker(threading.Thread):
    """One dealer, a line at a time until `until` (monotonic, s), with a rest of up to `rest_s` before each."""

    def __init__(self, settings: Settings, encoder: Encoder, until: float, rest_s: float) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.failure: Exception | None = None
        self.dealer = f"marker-{uuid.uuid4().hex[:12]}"
        self._encoder, self._until, self._rest_s = encoder, until, rest_s
        self._producer = producer(settings.kafka, linger_ms=0)

    def run(self) -> None:
        """Time lines until it is time, or one fails."""
        try:
            while time.monotonic() < self._until:
                time.sleep(random.uniform(0.0, self._rest_s))
                self.seconds.append(self.one(len(self.seconds) + 1))
        except Exception as failure:
            self.failure = failure

    @abstractmethod
    def one(self, number: int) -> float:
        """Return how long line `number`, from 1, took."""

    def wait_s(
        self,
        line_id: str,
        product_id: str,
        amount: float,
        at_ms: int,
        there: Callable[[], bool],
        pause_s: float,
    ) -> float:
        """Send a line, and return after how many seconds it is `there`."""
        value = self._encoder.encode(
            {
                "event_id": line_id, "order_id": line_id, "line": 0, "dealer_id": self.dealer,
                "customer_id": None, "product_id": product_id, "category": "MARKER", "brand": None,
                "quantity": 1, "amount": amount, "discount": 0.0, "event_time": at_ms,
            }
        )  # fmt: skip
        began = time.monotonic()
        self._producer.produce("orders", value, self.dealer)
        self._producer.poll(0)
        while not there():
            if time.monotonic() - began > _LONGEST_S:
                raise RuntimeError(f"{line_id} is not there after {_LONGEST_S:.0f} s")
            time.sleep(pause_s)
        return time.monotonic() - began


def timed(markers: Sequence[Marker]) -> list[float]:
    """Run markers side by side; return all their times, shortest first. Raises what one of them raised."""
    each: Any
    for each in markers:
        each.start()
    for each in markers:
        each.join()
    for each in markers:
        if each.failure is not None:
            raise each.failure
    return sorted(second for each in markers for second in each.seconds)
