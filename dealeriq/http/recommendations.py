"""Recommendations over HTTP: read from what the recommend view keeps, ranked as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from dealeriq.http.multiplex import MultiplexedRedis
from dealeriq.http.problems import ProblemError, nearest
from streams.recommend.rank import Ranking, Recommendation

__all__ = ["RecommendationSource"]

_MOST = 100
_ASKED = ("limit", "category")


class RecommendationSource:
    """Asks over the connection that the features are read on: three round trips."""

    def __init__(self, redis: MultiplexedRedis, ranking: Ranking) -> None:
        self._redis, self._ranking = redis, ranking

    async def answer(self, dealer_id: str, query: Mapping[str, str]) -> bytes:
        """Return a dealer's recommendations as JSON. Raises StoreUnavailableError, a `malformed-request`."""
        for name in query:
            if name not in _ASKED:
                raise ProblemError(
                    "malformed-request",
                    f"The query has an unknown parameter {name!r}. {nearest(name, _ASKED)}",
                )
        steps = self._ranking.steps(dealer_id, _limit(query.get("limit", "20")), query.get("category") or None)
        commands = next(steps)
        while True:
            replies = await self._redis.run(commands)
            try:
                commands = steps.send(list(replies))
            except StopIteration as done:
                found = done.value
                break
        return orjson.dumps(
            {
                "dealer_id": found.dealer_id,
                "at": found.at_ms,
                "known": found.known,
                "recommendations": [_data(each) for each in found.items],
            }
        )


def _data(each: Recommendation) -> dict[str, Any]:
    data = asdict(each)
    data["why"]["text"] = each.why.text
    return data


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST:
        return int(text)
    raise ProblemError("malformed-request", f"limit={text!r} is not a number from 1 to {_MOST}.")
