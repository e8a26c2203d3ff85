"""What a view is: a fold of some topics into one store, which keeps its own position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Position", "View"]

Position = dict[tuple[str, int], int]
"""The next offset of each (topic, partition) that a store holds."""


class View(ABC):
    """A fold of some topics into one store.

    The runner calls `apply` with records in offset order per partition, and may call it again with the same
    records after a crash: applying twice equals applying once. `apply` stores the position no earlier than the
    data; when it raises, the runner tries the same records again.
    """

    name: str
    """Also the consumer group's name, after the project."""

    topics: tuple[str, ...]

    retried: tuple[type[Exception], ...] = ()
    """What `apply`, `tick`, `spare` and `positions` raise when a store is away: tried again with backoff."""

    @abstractmethod
    def positions(self) -> Position:
        """Return the position that the store itself holds; empty for a new store."""

    @abstractmethod
    def apply(self, messages: Sequence[Any]) -> None:
        """Fold confluent-kafka messages, `refuse` what cannot be read, and move the position past them all."""

    letters: Callable[[Sequence[tuple[Any, Exception]]], None] | None = None
    """Takes the messages that cannot be read, each with its reason, and returns when they are kept as dead
    letters. The runner sets it."""

    def refuse(self, unreadable: Sequence[tuple[Any, Exception]]) -> None:
        """Have messages kept as dead letters: called before the position moves, so that a crash loses none."""
        if unreadable and self.letters is not None:
            self.letters(unreadable)

    def tick(self) -> None:  # noqa: B027
        """Do what time alone makes due. Called about once a second between batches, also when nothing comes."""

    def spare(self) -> bool:
        """Do a piece of what can wait, and return whether more of it does.

        Called after each look at the topics, whatever it brought: records that come meanwhile wait for it, so
        it takes a few hundredths of a second.
        """
        return False
