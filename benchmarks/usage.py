"""What a running system costs: processor time and memory by process, and what others took of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

from dealeriq.runtime import Supervisor

__all__ = ["Usage"]


class Usage:
    """Processor time (s) of every process of a system since now, and of everyone else on the machine."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._spent: dict[int, tuple[str, float]] = {}
        self._looked = 0.0
        self.look()
        self._before = dict(self._spent)
        self._own = psutil.Process()
        self._own_before = _own_s(self._own)
        self._busy_before, self._began = _busy_s(), time.monotonic()

    def look(self, at_least_s: float = 2.0) -> None:
        """Note what each process has used, if it is so long ago; one that ends keeps what was seen last."""
        if time.monotonic() - self._looked < at_least_s:  # a look at all of them takes milliseconds
            return
        self._looked = time.monotonic()
        for each in self._supervisor.status():
            if each.pid:
                for process in _family(each.pid):
                    self._spent[process.pid] = each.name, _own_s(process)

    def by_process(self) -> dict[str, float]:
        """Return the processor time of each process with its children, s, largest first."""
        self.look(0.0)
        total: dict[str, float] = {}
        for pid, (name, spent) in self._spent.items():
            total[name] = total.get(name, 0.0) + spent - self._before.get(pid, ("", 0.0))[1]
        return {name: round(s, 2) for name, s in sorted(total.items(), key=lambda each: -each[1])}

    def others(self) -> float:
        """Return how many cores were taken by processes that are neither the system nor this benchmark."""
        ours = sum(self.by_process().values()) + _own_s(self._own) - self._own_before
        elapsed = time.monotonic() - self._began
        return round(max((_busy_s() - self._busy_before - ours) / elapsed, 0.0), 2)

    def resident_gb(self) -> dict[str, float]:
        """Return the memory of each process with its children, GB; pages that several share count once."""
        held: dict[str, float] = {}
        for each in self._supervisor.status():
            if each.pid:
                held[each.name] = round(sum(map(_share, _family(each.pid))) / 1e9, 3)
        return dict(sorted(held.items(), key=lambda each: -each[1]))


def _family(pid: int) -> Iterable[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _own_s(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0


def _share(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, AttributeError):
        return 0


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
