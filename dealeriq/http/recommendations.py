"""Recommendations over HTTP: read from what the recommend view keeps, ranked as they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from connectors.log import get_logger
from dealeriq.http.multiplex import MultiplexedRedis, StoreUnavailableError
from dealeriq.http.problems import ProblemError, nearest
from models.recommend.settings import RecommendSettings
from models.settings import RuntimeSettings
from schemas.errors import DealerIQError
from streams.recommend.rank import Ranking, Recommendation
from streams.recommend.ranker import ModelRanker

__all__ = ["RecommendationSource"]

log = get_logger("dealeriq.http")
_MOST = 100
_ASKED = ("limit", "category")


class RecommendationSource:
    """Asks over the connection that the features are read on: three round trips.

    Each answer learns which model the view offers. Another one is loaded beside the requests, which the last
    one ranks until it is ready; one that cannot be loaded takes nobody's place.
    """

    def __init__(self, redis: MultiplexedRedis, project: str, settings: RecommendSettings) -> None:
        self._redis, self._ranking = redis, Ranking(project, settings)
        self._ranker: ModelRanker | None = None
        self._offered = b""
        self._loading: asyncio.Task[None] | None = None

    async def answer(self, dealer_id: str, query: Mapping[str, str]) -> bytes:
        """Return a dealer's recommendations as JSON. Raises StoreUnavailableError, a `malformed-request`."""
        for name in query:
            if name not in _ASKED:
                raise ProblemError(
                    "malformed-request",
                    f"The query has an unknown parameter {name!r}. {nearest(name, _ASKED)}",
                )
        steps = self._ranking.steps(
            dealer_id, _limit(query.get("limit", "20")), query.get("category") or None, self._ranker
        )
        commands, first = next(steps), True
        while True:
            asked = [*commands, ("HGET", self._ranking.keys.ranker, "version")] if first else commands
            replies = list(await self._redis.run(asked))
            if first:
                self._follow(replies.pop() or b"")
                first = False
            try:
                commands = steps.send(replies)
            except StopIteration as done:
                found = done.value
                break
        return orjson.dumps(
            {
                "dealer_id": found.dealer_id,
                "at": found.at_ms,
                "known": found.known,
                "model_version": found.model_version,
                "recommendations": [_data(each) for each in found.items],
            }
        )

    def _follow(self, offered: bytes) -> None:
        """Take up another version than the last one that was offered."""
        if offered == self._offered or (self._loading is not None and not self._loading.done()):
            return
        self._offered = offered
        if offered:
            self._loading = asyncio.get_running_loop().create_task(self._load())
        else:
            self._ranker = None

    async def _load(self) -> None:
        try:
            description, onnx = await self._redis.call(
                "HMGET", self._ranking.keys.ranker, "description", "onnx"
            )
            if description and onnx:
                settings = RuntimeSettings(threads=1)
                self._ranker = await asyncio.to_thread(ModelRanker.unpack, description, onnx, settings)
        except StoreUnavailableError:
            self._offered = b""  # the next answer tries again
        except DealerIQError as error:
            log.error("the ranking model cannot be loaded; what ranks goes on", error=error.told)


def _data(each: Recommendation) -> dict[str, Any]:
    data = asdict(each)
    data["why"]["text"] = each.why.text
    return data


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST:
        return int(text)
    raise ProblemError("malformed-request", f"limit={text!r} is not a number from 1 to {_MOST}.")
