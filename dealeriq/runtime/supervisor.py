"""The supervisor: starts the services whose address is unset, keeps them running, and leaves nothing behind."""

import atexit
import contextlib
import fcntl
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from connectors.errors import DiskFullError
from dealeriq.running import LOCK, publish, withdraw
from dealeriq.runtime.child import Child, ServiceStatus
from dealeriq.runtime.errors import DataFolderBusyError, ServiceFailedError
from dealeriq.runtime.ports import Ports
from dealeriq.runtime.services import SERVICES, Room, Service
from dealeriq.settings import Settings, load

__all__ = ["Supervisor"]

_CHECK_S = 0.1
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 10.0
# A child that dies this often within the span is given up.
_MOST_DEATHS, _SPAN_S = 8, 120.0
_MOST_DEATHS_AT_START = 3
_LEAST_ROOM = 1 << 20  # bytes; below it no service can work


# What a batch took goes back to the machine when it is done. glibc gives every few threads a heap of their own
# and returns little of it, the less the larger the pieces that it has seen; Arrow's own allocator returns less.
_FRUGAL = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class Supervisor:
    """Runs local services and our own processes as child processes, as a context manager.

    On entry it holds the data folder, starts every asked-for service whose address is unset, all at once, and
    waits until each really answers; `settings` then has every address. On exit, at the interpreter's end, on
    SIGTERM and SIGHUP, and even when it is killed with -9, every child ends.

    Args:
        settings: what is set; None loads it.
        services: names out of kafka, registry, redis, flink, connect, neo4j.
        data_dir: overrides `settings.data_dir`.
        prefer_default_ports: False takes free ports at once (tests).
        progress: gets one short line at a time for people.
        keep_classes: have Java services leave an archive of their classes in the cache, for a faster start.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        services: Sequence[str] = ("kafka", "registry", "redis"),
        data_dir: Path | str | None = None,
        prefer_default_ports: bool = True,
        progress: Callable[[str], None] | None = None,
        keep_classes: bool = False,
    ) -> None:
        self.settings = (settings or load(running=False)).model_copy(deep=True)
        if data_dir is not None:
            self.settings.data_dir = Path(data_dir)
        self.data_dir = self.settings.data_dir.absolute()
        self.settings.data_dir = self.data_dir
        self.start_seconds = 0.0
        self._names = tuple(services)
        self._tell = progress or (lambda line: print(f"dealeriq: {line}", file=sys.stderr, flush=True))
        self._prefer_default_ports = prefer_default_ports
        self._keep_classes = keep_classes
        self._children: dict[str, Child] = {}
        self._given: list[ServiceStatus] = []
        self._tools: dict[str, str] = {}
        self._tasks: queue.Queue[Callable[[], None]] = queue.Queue()
        self._keeper: threading.Thread | None = None
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._ended = threading.Event()
        self._idle.set()
        self._lock: IO[str] | None = None
        self._owner = os.getpid()
        self._room: Room | None = None

    def __enter__(self) -> "Supervisor":
        began = time.monotonic()
        self._hold_folder()
        atexit.register(self.close)
        self._tie_signals()
        try:
            ports = Ports(self.data_dir, self._prefer_default_ports)
            self._room = Room(self.data_dir, ports, self._progress, self._keep_classes)
            self._keeper = threading.Thread(target=self._keep, name="dealeriq-keeper", daemon=True)
            self._keeper.start()
            self.start_services(*self._names)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_services(self, *names: str) -> None:
        """Starts services, all at once, and waits until each answers; one that runs already is left alone.

        Raises:
            ServiceFailedError: one did not become ready; its log is named.
            DiskFullError: the data folder has no room.
            NoJavaError, JarUnavailableError: what it runs on is missing.
        """
        assert self._room is not None
        services: list[Service] = []
        for name in names:
            given = _given(self.settings, name)
            if given is not None:
                if name not in self._children and not any(s.name == name for s in self._given):
                    local = any(service.name in self._children for service in SERVICES[name])
                    if not local:
                        self._given.append(ServiceStatus(name, None, "given", given, 0, None, 0))
                continue
            services.extend(kind(self.settings, self._room) for kind in SERVICES[name])
        if not services:
            return
        # Ports are taken here, one after the other: two services must not be given the same free one.
        for service in services:
            service.address  # noqa: B018
        with ThreadPoolExecutor(len(services)) as pool:
            list(pool.map(self._bring_up, services))
        for service in services:
            service.resolve(self.settings)
        self.publish()

    def publish(self) -> None:
        """Make the addresses known to commands that use this data folder."""
        publish(self.data_dir, self.settings)

    def start_process(
        self,
        name: str,
        argv: Sequence[str],
        ready: Callable[[], bool] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        address: str = "",
        once: bool = False,
        wait_s: float = 180.0,
    ) -> Child:
        """Starts one of our own processes, given every resolved setting by its environment; keeps it running.

        Args:
            name: its name in `status` and its log's.
            argv: the command.
            ready: whether it does its work; None: as soon as it runs.
            environment: variables on top.
            address: shown in `status`.
            once: it may end with 0 and is then done.
            wait_s: how long to wait for `ready`, seconds; 0 returns at once.

        Raises:
            ServiceFailedError: it did not become ready in time.
        """
        merged = {
            **_FRUGAL,
            **os.environ,
            **self._tools,
            **self.settings.environment(),
            "PYTHONUNBUFFERED": "1",
        }
        merged.update(environment or {})
        child = Child(name, argv, self._log(name), merged, ready or (lambda: True), address, once=once)
        self._spawn(child)
        if wait_s:
            self._wait_ready(child, wait_s)
        return child

    def wait_ready(self, name: str, wait_s: float = 180.0) -> None:
        """Waits until a process that was started with `wait_s=0` does its work.

        Raises:
            ServiceFailedError: it did not become ready in time.
        """
        self._wait_ready(self._children[name], wait_s)

    def port(self, name: str, default: int) -> int:
        """A port of this data folder for one of our own processes, the same after a restart."""
        assert self._room is not None
        return self._room.ports.take(name, default)

    def status(self) -> list[ServiceStatus]:
        """Every service and process, in the order of their start."""
        return [*self._given, *(child.status() for child in list(self._children.values()))]

    def child(self, name: str) -> Child:
        """The child of that name. Raises KeyError."""
        return self._children[name]

    def stop_process(self, name: str) -> None:
        """Ends one child and forgets it. Raises KeyError."""
        child = self._children.pop(name)
        child.terminate()
        child.kill(patience_s=10.0)

    def close(self) -> None:
        """Ends every child, newest first, and lets the data folder go. May be called twice."""
        if os.getpid() != self._owner or self._lock is None:
            return
        self._stopping.set()
        self._idle.wait(timeout=5.0)
        services = {service.name for kinds in SERVICES.values() for service in kinds}
        own = [child for name, child in self._children.items() if name not in services]
        flink = [
            child for name, child in self._children.items() if name.startswith("flink-") and child not in own
        ]
        rest = [child for child in self._children.values() if child not in own and child not in flink]
        more_s = 20.0 if self._keep_classes else 0.0  # for the archives, of a first run
        for group, patience in ((own, 8.0), (flink, 4.0 + more_s), (rest, 10.0 + more_s)):
            for child in group:
                child.terminate()
            for child in group:
                child.kill(patience)
        self._ended.set()
        withdraw(self.data_dir)
        self._lock.close()
        self._lock = None
        atexit.unregister(self.close)

    def _bring_up(self, service: Service) -> None:
        argv = service.prepare()
        extra = service.environment()
        if service.name.startswith("flink-"):
            self._tools.update(extra)
        child = Child(
            service.name,
            argv,
            self._log(service.name),
            {**_FRUGAL, **os.environ, **extra},
            service.ready,
            service.address,
        )
        self._spawn(child)
        self._wait_ready(child, service.patience_s)

    def _spawn(self, child: Child) -> None:
        """Starts a child from the keeper's thread: a child dies with the thread that started it."""
        outcome: queue.Queue[BaseException | None] = queue.Queue()

        def start() -> None:
            try:
                child.start()
                self._children[child.name] = child
                outcome.put(None)
            except BaseException as failure:
                outcome.put(failure)

        if child.name in self._children:
            raise ValueError(f"a child named {child.name} runs already")
        self._tasks.put(start)
        failure = outcome.get(timeout=30)
        if isinstance(failure, OSError):
            raise ServiceFailedError(f"{child.name} could not be started: {failure}") from failure
        if failure is not None:
            raise failure

    def _wait_ready(self, child: Child, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not self._stopping.is_set():
            if child.state == "done" or child.is_ready():
                return
            if child.pid is None and self._disk_is_full():
                raise DiskFullError(f"{child.name} cannot start: the disk of {self.data_dir} is full")
            if child.state == "failed" or len(child.died_at) >= _MOST_DEATHS_AT_START:
                raise ServiceFailedError(
                    f"{child.name} ended {len(child.died_at)} times while starting: {_words(child)}"
                )
            if time.monotonic() > deadline:
                raise ServiceFailedError(
                    f"{child.name} was not ready within {patience_s:.0f} s: {_words(child)}"
                )
            time.sleep(0.05)
        raise ServiceFailedError(f"{child.name} was stopped while starting (log: {child.log})")

    def _keep(self) -> None:
        """The keeper's loop: starts what is asked for, and again what died."""
        self._idle.clear()
        while not self._stopping.is_set():
            try:
                self._tasks.get(timeout=_CHECK_S)()
                continue
            except queue.Empty:
                pass
            for child in list(self._children.values()):
                try:
                    self._look_after(child)
                except OSError as failure:
                    # A full disk or process table: tried again with the next look.
                    self._progress(f"{child.name} could not be started again: {failure}")
                    child.next_start = time.monotonic() + _LONGEST_BACKOFF_S
        self._idle.set()
        # The children would be killed with this thread, instead of ending in good order.
        self._ended.wait()

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.state in ("failed", "done", "stopped"):
            return
        if child.state == "restarting":
            if now >= child.next_start:
                child.restarts += 1
                child.start()
            return
        status = child.exit_status
        if status is None:
            # Who started it for the first time waits for it, but for what is over by itself.
            if child.state == "starting" and (child.restarts or child.once):
                child.is_ready()
            return
        if status == 0 and child.once:
            child.state = "done"
            return
        child.kill()
        if self._disk_is_full():
            # None of the child's fault: it is not given up, however long it takes to make room.
            child.next_start, child.state = now + _LONGEST_BACKOFF_S, "restarting"
            self._progress(
                f"{child.name} ended: the disk of {self.data_dir} is full. Make room; it is started again by "
                f"itself, and what it had is kept (log: {child.log})"
            )
            return
        child.died_at = [at for at in child.died_at if now - at < _SPAN_S] + [now]
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if len(child.died_at) >= _MOST_DEATHS:
            child.state = "failed"
            self._progress(
                f"{child.name} ended {len(child.died_at)} times in {_SPAN_S:.0f} s and is given up: "
                f"{child.last_words()} (log: {child.log})"
            )
            return
        backoff = min(_FIRST_BACKOFF_S * 2 ** (len(child.died_at) - 1), _LONGEST_BACKOFF_S)
        child.next_start = now + backoff
        child.state = "restarting"
        self._progress(f"{child.name} ended ({how}); starting it again in {backoff:g} s (log: {child.log})")

    def _progress(self, line: str) -> None:
        """Tells people. A terminal that is gone must not end the keeper, and with it every child."""
        with contextlib.suppress(Exception):
            self._tell(line)

    def _disk_is_full(self) -> bool:
        room = os.statvfs(self.data_dir)
        return room.f_bavail * room.f_frsize < _LEAST_ROOM

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _hold_folder(self) -> None:
        file = self.data_dir / LOCK
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = file.open("a+")
        except OSError as failure:
            raise ServiceFailedError(
                f"the data folder {self.data_dir} cannot be written: {failure.strerror}"
            ) from failure
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise DataFolderBusyError(
                f"the data folder {self.data_dir} is used by another run (pid {holder})"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _tie_signals(self) -> None:
        """SIGTERM and SIGHUP unwind the program like Ctrl-C does, unless it handles them itself."""
        if threading.current_thread() is not threading.main_thread():
            return

        def unwind(number: int, frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, unwind)


def _words(child: Child) -> str:
    return f"{child.last_words()} (log: {child.log})"


def _given(settings: Settings, name: str) -> str | None:
    """The address that is set for a service, None when it is to be started."""
    addresses: dict[str, Any] = {
        "kafka": settings.kafka.bootstrap,
        "registry": settings.registry.url,
        "redis": settings.redis.url,
        "flink": settings.flink.url,
        "connect": settings.connect.url,
        "neo4j": settings.graph.url,
    }
    address = addresses[name]
    return None if address is None else str(address).rpartition("@")[2]
