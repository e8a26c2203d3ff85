"""The supervisor: what dies comes back, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dealeriq.runtime import Supervisor
from dealeriq.runtime.errors import DataFolderBusyError, ServiceFailedError
from dealeriq.settings import load

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def running(tmp_path: Path, lines: list[str]) -> Iterator[Supervisor]:
    settings = load({})
    with Supervisor(
        settings, ("redis",), tmp_path, prefer_default_ports=False, progress=lines.append
    ) as supervisor:
        yield supervisor


def eventually(seen: Callable[[], object], patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.05)


def test_a_killed_child_comes_back_on_its_port(running: Supervisor, lines: list[str]) -> None:
    before = running.status()[0]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    after = before

    def back() -> bool:
        nonlocal after
        after = running.status()[0]  # one look: between two it may have died, or come back
        return after.state == "ready" and after.pid != before.pid

    eventually(back)
    assert after.address == before.address
    assert after.restarts == 1
    assert any("redis ended (signal 9)" in line and str(after.log) in line for line in lines)


def test_a_terminal_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError

    with Supervisor(load({}), ("redis",), tmp_path, prefer_default_ports=False, progress=gone) as supervisor:
        first = supervisor.status()[0].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: supervisor.status()[0].restarts == 1 and supervisor.status()[0].state == "ready")
        second = supervisor.status()[0].pid
        assert second is not None
        os.kill(second, signal.SIGKILL)
        eventually(lambda: supervisor.status()[0].restarts == 2 and supervisor.status()[0].state == "ready")


def test_a_command_that_keeps_failing_is_told_in_one_line(running: Supervisor) -> None:
    with pytest.raises(
        ServiceFailedError, match=r"ended 3 times while starting: ValueError: no luck \(log: .*\)"
    ) as caught:
        running.start_process("unlucky", [sys.executable, "-c", "raise ValueError('no luck')"], lambda: False)
    assert "\n" not in str(caught.value)
    assert "no luck" in (running.data_dir / "logs" / "unlucky.log").read_text()


def test_a_process_gets_the_resolved_addresses(running: Supervisor, tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(os.environ['DEALERIQ_REDIS__URL'])"
    child = running.start_process("teller", [sys.executable, "-c", code], told.exists, once=True)
    assert told.read_text() == running.settings.redis.url
    eventually(lambda: child.state == "done")


def test_what_nobody_waits_for_is_ready_while_it_works_and_done_when_it_is_over(
    running: Supervisor, tmp_path: Path
) -> None:
    begun, over = tmp_path / "begun", tmp_path / "over"
    code = f"""
        import pathlib, time
        pathlib.Path({str(begun)!r}).touch()
        while not pathlib.Path({str(over)!r}).exists():
            time.sleep(0.05)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    child = running.start_process("player", argv, begun.exists, once=True, wait_s=0)
    eventually(lambda: child.state == "ready")
    over.touch()
    eventually(lambda: child.state == "done")
    assert child.restarts == 0


def test_two_runs_on_one_folder_are_refused(running: Supervisor) -> None:
    with (
        pytest.raises(DataFolderBusyError, match=f"used by another run .pid {os.getpid()}"),
        Supervisor(load({}), ("redis",), running.data_dir),
    ):
        pass
    assert running.status()[0].state == "ready"


def test_an_address_that_is_set_is_used(tmp_path: Path) -> None:
    settings = load({"DEALERIQ_REDIS__URL": "redis://user:secret@elsewhere:6379/0"})
    with Supervisor(settings, ("redis",), tmp_path) as supervisor:
        (status,) = supervisor.status()
        assert (status.state, status.pid, status.address) == ("given", None, "elsewhere:6379/0")
        assert supervisor.settings.redis.url == settings.redis.url


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_however_it_ends_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    # Tests that run in the background ignore some signals, and their children would, too.
    code = f"""
        import signal, sys, time
        number = signal.Signals({int(number)})
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        from dealeriq.runtime import Supervisor
        from dealeriq.settings import load
        with Supervisor(load({{}}), ("redis",), {str(tmp_path)!r}, prefer_default_ports=False) as supervisor:
            supervisor.start_process("sleeper", {SLEEPER!r})
            print("up", flush=True)
            time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 2
    parent.send_signal(number)
    parent.wait(20)
    eventually(
        lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], 5.0
    )
    parent.stdout.close()
    # The folder is free at once, and its port is the same.
    port = (tmp_path / "ports.json").read_text()
    with Supervisor(load({}), ("redis",), tmp_path, prefer_default_ports=False):
        assert (tmp_path / "ports.json").read_text() == port


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with (
        pytest.raises(ServiceFailedError, match="cannot be written"),
        Supervisor(load({}), (), file / "folder"),
    ):
        pass
