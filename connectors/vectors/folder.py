"""The folder of an index: one owner, versions side by side, and the name of the one that counts.

`<root>/current` names the version in use. A new version is made beside it and then named, in one atomic step;
what is no longer named is removed by the next owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from connectors.vectors.errors import IndexBusyError, IndexUnavailableError

__all__ = ["IndexFolder"]

_PREFIX, _BUILDING = "version-", "building-"


class IndexFolder:
    """The versions under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: IO[str] | None = None

    def own(self) -> None:
        """Take the folder for this process until `release`. Raises IndexBusyError."""
        self._lock = self._take("owner.lock", "belongs to")

    def release(self) -> None:
        """Let another process own the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @contextlib.contextmanager
    def building(self, forget: Callable[[Path], None] = lambda version: None) -> Iterator[Path]:
        """Give the path of a version to be made beside the others, and remove it if it was not adopted.

        `forget` is as for `tidy`.

        Raises IndexBusyError where another process is making one.
        """
        lock = self._take("builder.lock", "is being made again by")
        try:
            for left in self.root.glob(f"{_BUILDING}*"):  # by one that was killed
                _remove(left, forget)
            beside = self.root / f"{_BUILDING}{time.time_ns():x}"
            try:
                yield beside
            finally:
                if beside.exists():
                    _remove(beside, forget)
        finally:
            lock.close()

    def adopt(self, beside: Path, *, keep: bool = False, about: str | None = None) -> None:
        """Let what was made in `building`, and is closed, count from now on; `keep` the one before to go back
        to.

        `about` is a line that `about()` then tells of the version. Where the same is said of the one before,
        what is kept stays: who takes a step twice goes back to where it began.
        Whatever moment it is killed at, either version counts, whole, and the one before is still there.
        """
        version, before = self.fresh(), self.current()
        if about is not None:
            self.describe(version, about)
        beside.rename(version)
        again = before is not None and about is not None and self.about(before) == about
        if keep and before is not None and not again:
            self._name("previous", before)
        self.swap(version)

    def go_back(self) -> Path | None:
        """Let the version before count again, and keep this one to return to; None where there is none."""
        before, current = self.previous(), self.current()
        if before is None or current is None or before == current or not before.exists():
            return None
        self.swap(before)
        self._name("previous", current)  # after the swap: until then it names the one that counts from now on
        return before

    def describe(self, version: Path, about: str) -> None:
        """Let `about` be what is said of a version."""
        beside = self.root / f".about-{os.getpid()}"
        beside.write_text(about)
        beside.replace(self.root / f"about-{version.name}")

    def about(self, version: Path) -> str | None:
        """Return what was said of a version when it was adopted, None where nothing was."""
        try:
            return (self.root / f"about-{version.name}").read_text()
        except FileNotFoundError:
            return None

    def versions(self) -> list[Path]:
        """Return every whole version, oldest first."""
        return sorted(self.root.glob(f"{_PREFIX}*"))

    def current(self) -> Path | None:
        """Return the version that counts, None where there is none yet."""
        return self._named("current")

    def previous(self) -> Path | None:
        """Return the version that is kept to go back to, None where there is none."""
        return self._named("previous")

    def fresh(self) -> Path:
        """Return the path of a new version; nothing is there yet."""
        return self.root / f"{_PREFIX}{time.time_ns():x}"

    def swap(self, version: Path) -> None:
        """Let `version` count from now on."""
        self._name("current", version)

    def tidy(self, forget: Callable[[Path], None] = lambda version: None) -> None:
        """Remove versions that neither count nor are kept. Only the owner may.

        `forget` is told of each before; where it raises IndexUnavailableError the version is left.
        """
        kept = {self.previous(), self.current()}  # in this order: an adoption names the previous one first
        for each in self.versions():
            # What is newer than the one that counts may be about to take its place.
            if each not in kept and each < (self.current() or each):
                _remove(each, forget)
                if not each.exists():
                    (self.root / f"about-{each.name}").unlink(missing_ok=True)

    def _named(self, name: str) -> Path | None:
        try:
            return self.root / (self.root / name).read_text().strip()
        except FileNotFoundError:
            return None

    def _name(self, name: str, version: Path) -> None:
        beside = self.root / f".{name}-{os.getpid()}"
        beside.write_text(version.name)
        beside.replace(self.root / name)

    def _take(self, name: str, told: str) -> IO[str]:
        self.root.mkdir(parents=True, exist_ok=True)
        lock = (self.root / name).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise IndexBusyError(f"the index in {self.root} {told} {holder}") from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()}")
        lock.flush()
        return lock


def _remove(version: Path, forget: Callable[[Path], None]) -> None:
    with contextlib.suppress(IndexUnavailableError):
        forget(version)
        shutil.rmtree(version, ignore_errors=True)
