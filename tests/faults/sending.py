"""Orders that a test sends, and remembers."""

import random
from collections.abc import Sequence
from typing import Any

from oracle import DAY, HOUR

from connectors.kafka import producer
from connectors.registry import Registry
from dealeriq.system import System
from schemas.codec import Encoder
from schemas.envelope import headers
from schemas.ids import event_id

NOON = 1_700_000_000_000 // DAY * DAY + 12 * HOUR


class Orders:
    """Produces order lines and remembers what it sent."""

    def __init__(self, system: System, dealers: Sequence[str]) -> None:
        settings = system.supervisor.settings
        self.dealers = dealers
        self.sent: list[dict[str, Any]] = []
        self._ids = Registry(settings.registry).register_all(["orders"])
        self.encoder = Encoder("orders", self._ids["orders-value"])
        self.producer = producer(settings.kafka, linger_ms=1)
        self._random = random.Random(7)

    def one(self, number: int) -> dict[str, Any]:
        """Make the order line of this number; the same number is the same event."""
        pick = self._random
        return {
            "event_id": event_id("orders", f"T{number}", "1"), "order_id": f"T{number}", "line": 1,
            "dealer_id": pick.choice(self.dealers), "customer_id": f"C{pick.randrange(50)}",
            "product_id": f"P{pick.randrange(40)}", "category": pick.choice(["GROCERY", "MEAT"]), "brand": None,
            "quantity": pick.randrange(1, 9), "amount": pick.randrange(1, 10_000) / 100, "discount": 0.0,
            "currency": "USD", "channel": "store",
            "event_time": NOON - int(pick.expovariate(1 / (3 * DAY))),
        }  # fmt: skip

    def send(self, record: dict[str, Any]) -> None:
        self.producer.produce(
            "orders", self.encoder.encode(record), key=record["dealer_id"],
            headers=headers(record["event_id"], "orders", "test", record["event_time"], record["dealer_id"]),
        )  # fmt: skip
        self.sent.append(record)

    def flush(self) -> None:
        assert self.producer.flush(60) == 0
