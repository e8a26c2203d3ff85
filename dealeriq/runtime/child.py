"""One child process: started so that it cannot outlive us, and logged to its own file."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Child", "ServiceStatus", "die_with_parent", "resident_bytes"]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LOG_LIMIT = 64 << 20


@dataclass(frozen=True)
class ServiceStatus:
    """What one service or process is doing. `rss` is in bytes and counts what the child itself started."""

    name: str
    pid: int | None
    state: str
    address: str
    rss: int
    log: Path | None
    restarts: int


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the thread that started it ends.

    That holds for a parent that was killed with -9, which no exit handler can. A process that starts children
    of its own passes it on as `preexec_fn`.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Child:
    """A command that is kept running.

    `start` must be called from a thread that lives as long as the child may: the kernel takes a
    thread's end for its parent's death.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        ready: Callable[[], bool],
        address: str = "",
        working_dir: Path | None = None,
        once: bool = False,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log = log
        self.address = address
        self.once = once
        self.restarts = 0
        self.died_at: list[float] = []
        self.next_start = 0.0
        self.state = "new"
        self._environment = dict(environment)
        self._ready = ready
        self._working_dir = working_dir
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the command in its own process group. Raises OSError if it cannot be run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        parent = os.getpid()

        def tie_to_parent() -> None:
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)

        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._working_dir,
                start_new_session=True,
                preexec_fn=tie_to_parent,
            )
        self.state = "starting"

    @property
    def pid(self) -> int | None:
        """The process id, or None when it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs or was never started."""
        return self._process.poll() if self._process else None

    def is_ready(self) -> bool:
        """Whether the service answers; remembers it in `state`."""
        if self.pid is not None and self._ready():
            self.state = "ready"
            return True
        return False

    def terminate(self) -> None:
        """Asks the whole process group to end."""
        self._signal(signal.SIGTERM)

    def kill(self, patience_s: float = 0.0) -> None:
        """Waits for the end, then kills the whole process group."""
        if self._process is None:
            return
        deadline = time.monotonic() + patience_s
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        # The group may hold grandchildren whose leader is gone already.
        self._signal(signal.SIGKILL)
        self._process.wait()
        self.state = "stopped"

    def status(self) -> ServiceStatus:
        """A snapshot for people and tests."""
        pid = self.pid
        # Between a death and the keeper's next look the remembered state is wrong.
        state = "down" if pid is None and self.state in ("starting", "ready") else self.state
        return ServiceStatus(
            self.name, pid, state, self.address, resident_bytes(pid) if pid else 0, self.log, self.restarts
        )

    def last_words(self) -> str:
        """The last line of the log that reads like an error, else the last line."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, self.log.stat().st_size - 16_384))
                lines = [
                    line.strip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()
                ]
        except OSError:
            return ""
        told = [
            line for line in lines if any(word in line for word in ("ERROR", "FATAL", "Exception", "Error:"))
        ]
        return (told or lines or [""])[-1][:200]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                return


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, in bytes; 0 if it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        try:
            total += int(member.memory_info().rss)
        except psutil.Error:
            continue
    return total
