"""Where the service reads features: the port that its handlers see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from dealeriq.http.selection import Catalogue, Entity, Selection

__all__ = ["FeatureSource"]


class FeatureSource(ABC):
    """Reads merged features of entities; every method is called on the one event loop.

    Raises `StoreUnavailableError` where the store does not answer: the service turns it into 503.
    """

    catalogue: Catalogue

    @abstractmethod
    async def start(self) -> None:
        """Connect; a store that is down is not an error here, it is retried in the background."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections."""

    @abstractmethod
    async def rows(
        self, selection: Selection, entities: Sequence[Entity], at_ms: int, detail: bool
    ) -> Sequence[bytes]:
        """One JSON fragment an entity, in order: `"features":{view:{feature:value}}` without outer braces.

        With `detail` also `"statuses":{view:{feature:status}}` and `"event_times":{view:ms}`.
        """

    @abstractmethod
    async def event_time_ms(self) -> int | None:
        """The latest event time the feature view has seen; None before the first."""

    @abstractmethod
    async def positions(self) -> dict[str, dict[str, int]]:
        """Per view, the next offset of each `topic:partition` its store holds; empty where none is known."""

    @abstractmethod
    async def facts(self) -> dict[str, Any]:
        """What readiness should tell of the store: address, reachable, delay in ms."""
