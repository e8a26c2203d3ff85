"""Our side's hold on the peers' environment: set up on first use, its programs started, asked and ended."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Conversation", "ask", "child", "converse", "interpreter", "wait_until_answers"]

ROOT = Path(__file__).parents[1]


@cache
def interpreter() -> str:
    """Path of the peers' Python; their environment is made first where it is missing or old."""
    done = subprocess.run([str(ROOT / "run"), "peers"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def child(argv: Sequence[str], log: Path, **options: Any) -> Iterator[psutil.Process]:
    """Run a program, with what it says in `log`; it and whatever it started are ended."""
    with log.open("w") as out:
        process = psutil.Popen(argv, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, **options)
    try:
        yield process
    finally:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for each in alive:
            each.kill()


def wait_until_answers(url: str, process: psutil.Process, log: Path, within_s: float = 240) -> None:
    """Return when an HTTP address answers. Raises RuntimeError where its program ended or took too long."""
    until = time.monotonic() + within_s
    while time.monotonic() < until and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer: {log.read_text('utf-8')[-2000:]}")


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON answer of one request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


class Conversation:
    """A program that answers each JSON line with one JSON line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, order: dict[str, Any]) -> Any:
        """Return its answer. Raises RuntimeError where it ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}; what it said stands above")
        return json.loads(line)


@contextmanager
def converse(*argv: str) -> Iterator[Conversation]:
    """Start `python -m` of a module in the peers' environment, and end it afterwards."""
    process = subprocess.Popen(
        [interpreter(), "-W", "ignore", "-m", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Conversation(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
