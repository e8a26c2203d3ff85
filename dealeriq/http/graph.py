"""Answers from the graph over HTTP. The driver is loaded, and connected, by the first question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import orjson

from connectors.errors import translated
from connectors.neo4j.settings import GraphSettings
from dealeriq.http.insights import limit_of
from dealeriq.http.problems import ProblemError

if TYPE_CHECKING:
    from streams.graph.reader import GraphReader

__all__ = ["GraphSource", "Question"]

Question = Literal["bought_together", "compatible", "similar_dealers"]
"""A question is a method of `GraphReader`."""

_MOST = 100


class GraphSource:
    """Asks the graph that the settings name; without an address it answers that there is none."""

    def __init__(self, settings: GraphSettings) -> None:
        self._settings = settings
        self._reader: GraphReader | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._reader is not None:
            await self._reader.driver.close()

    async def ask(self, question: Question, identity: str, query: Mapping[str, str]) -> bytes:
        """Return what the graph says of one product or dealer, as JSON; `query` may bound it by `limit`.

        Raises malformed-request, not-in-graph and graph-unavailable problems.
        """
        limit = _limit(query)
        if self._settings.url is None:
            raise ProblemError("graph-unavailable", "This service was given no graph.")
        from streams.graph.reader import NotInGraphError

        try:
            return orjson.dumps(await getattr(self._connected(), question)(identity, limit))
        except NotInGraphError as error:
            raise ProblemError("not-in-graph", f"{error}.", remedy=error.remedy) from None
        except Exception as failure:
            known = translated(failure)
            if known is None:
                raise
            after = [(b"retry-after", b"2")]
            raise ProblemError("graph-unavailable", f"{known}", remedy=known.remedy, headers=after) from None

    def _connected(self) -> GraphReader:
        if self._reader is None:
            from connectors.neo4j.driver import connect_async
            from streams.graph.reader import GraphReader

            settings = self._settings
            self._reader = GraphReader(connect_async(settings), settings.database, settings.query_timeout_s)
        return self._reader


def _limit(query: Mapping[str, str]) -> int:
    for name in query:
        if name != "limit":
            raise ProblemError("malformed-request", f"The query has an unknown parameter {name!r}.")
    return limit_of(query.get("limit", "10"), _MOST)
