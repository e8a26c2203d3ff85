"""Prices over HTTP: the advice of each group that a dealer sells, on its own sales of 30 days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from dealeriq.http.multiplex import MultiplexedRedis
from dealeriq.http.problems import ProblemError, nearest
from dealeriq.http.source import FeatureSource
from models.pricing import ASSUMED, MarginError, advise
from streams.scoring.price_board import VIEW, PriceBoard, prices_key

__all__ = ["PriceSource"]

_ASKED = ("margin", "most")
_SOLD = ("amount_sum_30d", "quantity_sum_30d")


class PriceSource:
    """Reads what the scorer knows of prices, and the dealer's features: two round trips."""

    def __init__(self, redis: MultiplexedRedis, project: str, source: FeatureSource) -> None:
        self._redis, self._project, self._source = redis, project, source

    async def answer(self, dealer_id: str, query: Mapping[str, str], at_ms: int) -> bytes:
        """Return a dealer's prices as JSON. Raises StoreUnavailableError, a `malformed-request`."""
        for name in query:
            if name not in _ASKED:
                raise ProblemError(
                    "malformed-request",
                    f"The query has an unknown parameter {name!r}. {nearest(name, _ASKED)}",
                )
        margin = None if "margin" not in query else _share("margin", query["margin"])
        most = _share("most", query.get("most", "0.2"))
        held = await self._redis.call("GET", prices_key(self._project))
        board = PriceBoard.load(held)
        sold = await self._sold(dealer_id, [each.group for each in board.groups], at_ms)
        groups = []
        for each in board.groups:
            if (mine := sold.get(each.group)) is None:
                continue
            try:
                told = asdict(advise(each, margin, most))
            except MarginError as error:
                raise ProblemError("malformed-request", str(error)) from None
            groups.append({**told.pop("response"), **told, "sold_30d": mine})
        groups.sort(key=lambda each: -each["gain"]["expected"] * each["sold_30d"]["amount"])
        answer = {
            "dealer_id": dealer_id, "at": at_ms, "version": board.version, "margin": margin,
            "assumed": ASSUMED, "groups": groups,
        }  # fmt: skip
        return orjson.dumps(answer)

    async def _sold(self, dealer_id: str, groups: list[str], at_ms: int) -> dict[str, dict[str, float]]:
        """What the dealer sold of each group in 30 days; those of which it sold nothing are left out."""
        if not groups:
            return {}
        selection = self._source.catalogue.of_features([f"{VIEW}:{each}" for each in _SOLD])
        rows = await self._source.rows(
            selection, [{"dealer_id": dealer_id, "category": each} for each in groups], at_ms, False
        )
        found: dict[str, dict[str, float]] = {}
        for group, row in zip(groups, rows, strict=True):
            values: dict[str, Any] = orjson.loads(b"{%b}" % row)["features"][VIEW]
            amount, quantity = (values[each] for each in _SOLD)
            if amount:
                found[group] = {"amount": amount, "quantity": quantity or 0.0}
        return found


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if 0 <= value <= 1:
        return value
    raise ProblemError("malformed-request", f"{name}={text!r} is not a share from 0 to 1.")
