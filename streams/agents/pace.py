"""How much of a batch is handled at once: what takes about as long as wanted, judged by the part before."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Pace"]

_LEAST_BYTES = 4_096


class Pace:
    """Cuts batches into parts, so that what is first in a batch is through before the last is begun.

    Args:
        most_bytes: of values, that no part of several events holds more than.
        wanted_s: how long a part is to take, s; None: no matter how long.
    """

    def __init__(self, most_bytes: int | None, wanted_s: float | None) -> None:
        self._most, self._wanted_s = most_bytes, wanted_s
        self._now: float | None = most_bytes

    def end(self, sizes: Sequence[int], start: int) -> int:
        """Return where the part ends that begins at `start`, given the bytes of each event."""
        if self._now is None:
            return len(sizes)
        end, held = start + 1, sizes[start]
        while end < len(sizes) and held + sizes[end] <= self._now:
            held += sizes[end]
            end += 1
        return end

    def took(self, size: int, seconds: float) -> None:
        """Say how long a part of so many bytes took, s: the next is to take what is wanted."""
        if self._most is not None and self._wanted_s is not None and seconds > 0:
            self._now = min(self._most, max(_LEAST_BYTES, size / seconds * self._wanted_s))
