from __future__ import annotations

import pytest


@pytest.fixture
def order():
    return {
        "event_id": "264d5a55df8911641a6ca3d44214302c",
        "order_id": "31198570044",
        "line": 0,
        "dealer_id": "330",
        "customer_id": None,
        "product_id": "1095275",
        "category": "PASTRY",
        "brand": "National",
        "quantity": 2,
        "amount": 0.5,
        "discount": 0.1,
        "currency": "USD",
        "channel": "store",
        "event_time": 1_483_229_520_000,
    }
