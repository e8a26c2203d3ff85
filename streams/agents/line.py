"""Parts of batches on their way, as on an assembly line: one is begun, one derived, one delivered at a time.

Deriving is where an agent's time goes, and an encoder holds no lock of the interpreter meanwhile: decoding what
comes next and producing what came before take its place on another core. Two threads of their own derive and
deliver, each part after the one before it; who puts parts in is the third.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from streams.agents.stage import Key

__all__ = ["Batch", "Line"]

_T = TypeVar("_T")


@dataclass
class Batch:
    """The parts of one batch: behind one that fails none is derived, and the batch fails by its error."""

    parts: int = 0
    failed: int | None = None
    error: BaseException | None = None

    def fail(self, part: int, error: BaseException) -> None:
        """Let the batch fail by the error of a part, unless one before it failed."""
        if self.failed is None or part < self.failed:
            self.failed, self.error = part, error

    def check(self, part: int | None = None) -> None:
        """Raise the error of a part before this one; of any, where none is given."""
        if self.error is not None and self.failed is not None and (part is None or part > self.failed):
            raise self.error


@dataclass(frozen=True)
class _Part:
    keys: frozenset[Key]
    done: Future[None]


class Line:
    """Its own threads, and `room`, `put` and `end` for one more.

    Args:
        name: of the threads.
        at_once: parts that are derived at the same time.
        fatal: whether an error of deriving is the batch's; another is for who delivers to deal with.
    """

    def __init__(self, name: str, at_once: int, fatal: Callable[[BaseException], bool]) -> None:
        self._fatal = fatal
        # With one more that is delivered or waits; what comes later can still go together.
        self._most = at_once + 1
        self._deriving = ThreadPoolExecutor(at_once, thread_name_prefix=f"{name}-derive")
        self._delivering = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-deliver")
        self._parts: list[_Part] = []

    def room(self, keys: frozenset[Key]) -> None:
        """Wait until nothing on its way is about any of these keys, and there is room for one part more."""
        self._parts = [each for each in self._parts if not each.done.done()]
        too_many = len(self._parts) + 1 - self._most
        for at, each in enumerate(self._parts):
            if at < too_many or not keys.isdisjoint(each.keys):
                wait([each.done])

    def busy(self) -> frozenset[Key]:
        """Return the keys of what is on its way."""
        return frozenset[Key]().union(*(each.keys for each in self._parts if not each.done.done()))

    def put(
        self,
        batch: Batch,
        keys: frozenset[Key],
        derive: Callable[[], _T],
        deliver: Callable[[Callable[[], _T]], None],
    ) -> Future[None]:
        """Let a part go its way; `deliver` is given what returns, or raises, what `derive` did.

        An error of `deliver` is the batch's.
        """
        number, batch.parts = batch.parts, batch.parts + 1

        def first() -> _T:
            batch.check(number)
            try:
                return derive()
            except BaseException as error:
                if self._fatal(error):
                    batch.fail(number, error)
                raise

        derived = self._deriving.submit(first)

        def then() -> None:
            try:
                batch.check(number)
                deliver(derived.result)
            except BaseException as error:
                batch.fail(number, error)
                raise

        done = self._delivering.submit(then)
        self._parts.append(_Part(keys, done))
        return done

    def end(self, batch: Batch) -> Future[None]:
        """Return what is done when every part of the batch is, and fails as it does."""
        return self._delivering.submit(batch.check)

    def close(self) -> None:
        """Wait for what is on its way."""
        self._deriving.shutdown(wait=True)
        self._delivering.shutdown(wait=True)
