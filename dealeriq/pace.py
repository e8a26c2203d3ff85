"""How a process of ours shares the processors with others, and how often it looks for garbage."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

__all__ = ["collect_less_often", "stand_back"]

_YOUNG = 100_000


def stand_back(nice: int) -> None:
    """Leave the processors to others while they are short, by so many steps of niceness.

    Linux shares them among sessions first where sched_autogroup is on: there only the session's own nice value
    counts, and it is set where this process leads one. A shell's session is left as it is.
    """
    os.nice(nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


def collect_less_often() -> None:
    """Let Python look for cycles once in 100,000 new objects instead of 700.

    Batches of records are many objects that live a moment and refer to nothing that refers back: by default the
    collector goes through them again and again, a fifth of the time in which the lake view makes rows.
    """
    gc.set_threshold(_YOUNG, 20, 20)
