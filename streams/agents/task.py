"""One message on its way through an agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.agents.stage import Derived, Event, Key, Message, Outcome

__all__ = ["Task", "pairs", "short_first"]


_PENDING = Outcome()


@dataclass(slots=True)
class Task:
    """One message on its way: what it holds, what became of it, and the bytes that follow from it.

    `about` is its topic and key: what is about the same goes in order.
    """

    message: Message
    event: Event
    about: Key
    outcome: Outcome = _PENDING
    encoded: Sequence[tuple[Derived, bytes | None]] = ()


def pairs(message: Message) -> list[tuple[str, bytes | None]]:
    """Return a message's headers as pairs, in whichever form its consumer has them."""
    raw = message.headers
    found = raw.items() if hasattr(raw, "items") else raw or ()
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in found]


def short_first(tasks: list[Task]) -> list[Task]:
    """What is soon through waits for nothing long, and a part holds what is alike; a key's keep their order."""
    longest: dict[Key, int] = {}
    for task in tasks:
        size = task.event.size
        if size > longest.get(task.about, -1):
            longest[task.about] = size
    return sorted(tasks, key=lambda task: longest[task.about])
