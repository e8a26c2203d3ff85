"""What one agent is: a topic in, a topic out, and a pure function from a batch to derived events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Derived", "Record", "Stage"]

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Derived:
    """One event derived from one record: its key and value for the stage's target topic.

    `subject` and `outcome` go into the envelope and the metrics.
    """

    key: str
    record: Record
    subject: str
    outcome: str = "produced"


class Stage(ABC):
    """A function on a batch, hosted by an agent.

    `handle` returns, for each record in order, the event derived from it. It holds no state between batches
    beyond caches, and the same record always gives an event of the same `event_id`, so that handling it twice
    is recognisable. If it raises, the host tries each record alone, and only one that raises alone becomes a
    dead letter; an error in `retried` (a service that is down) is tried again with backoff and loses nothing.
    """

    name: str
    source: str
    target: str
    retried: tuple[type[Exception], ...] = ()

    @abstractmethod
    def handle(self, records: Sequence[Record]) -> list[Derived]:
        """Return one derived event for each record, in order."""

    def after(self, records: Sequence[Record], derived: Sequence[Derived]) -> None:  # noqa: B027
        """Called when the derived events are in Kafka and before the sources count as done; may repeat.

        An error here is always retried, never a dead letter.
        """
