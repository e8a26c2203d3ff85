"""One Airbyte source, run as a process: spec, check, discover and read, as JSON lines on its standard output.

The protocol: every line is an object with a `type`; a line that is not, is the source's log. RECORD carries a
row, STATE says that everything before it need not be read again, TRACE of type ERROR says what went wrong.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from connectors.airbyte.errors import (
    NotASourceError,
    SourceConfigError,
    SourceFailedError,
    SourceUnavailableError,
)

__all__ = ["Source", "Stream"]

Message = dict[str, Any]

_ANSWER_S = 300.0  # spec, check and discover; an image may have to be pulled first
_LONGEST_LINE = 64 << 20
_ERRORS: dict[str, type[SourceFailedError]] = {
    "config_error": SourceConfigError,
    "transient_error": SourceUnavailableError,
}


@dataclass(frozen=True)
class Stream:
    """A stream that a source offers. `raw` is its description, given back when it is read."""

    name: str
    raw: dict[str, Any]

    @property
    def incremental(self) -> bool:
        """Whether a later read goes on where the state says, instead of from the start."""
        return "incremental" in self.raw.get("supported_sync_modes", ())

    @property
    def columns(self) -> list[str]:
        """Names of its columns, nested objects by dots; empty when the source does not say."""
        return _columns(self.raw.get("json_schema", {}))


@dataclass
class Source:
    """A source as a context manager; its configuration lies in a private folder while it is open.

    `command` is run with the protocol's arguments behind it; `{folder}` in it becomes that private folder, for
    a container that must mount it. `preexec` runs in the child before the command, to tie it to its parent.
    Secrets of the configuration are given by file only, never by argument.
    """

    name: str
    command: Sequence[str]
    config: Mapping[str, Any]
    preexec: Callable[[], None] | None = None
    _folder: Path = field(init=False)
    _room: Any = field(init=False)

    def __enter__(self) -> Source:
        self._room = tempfile.TemporaryDirectory(prefix="dealeriq-source-")
        self._folder = Path(self._room.name)
        self._write("config", dict(self.config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.cleanup()

    def spec(self) -> dict[str, Any]:
        """Return the JSON schema of its configuration."""
        found = self._answer("SPEC", "spec")["spec"]
        return dict(found.get("connectionSpecification", {}))

    def check(self) -> None:
        """Have the source try its configuration. Raises SourceConfigError with the source's own sentence."""
        status = self._answer("CONNECTION_STATUS", "check", "--config", self._path("config"))
        outcome = status["connectionStatus"]
        if outcome.get("status") != "SUCCEEDED":
            raise SourceConfigError(f"{self.name}: {outcome.get('message') or 'the check failed'}")

    def discover(self) -> list[Stream]:
        """Return the streams it offers with this configuration."""
        catalog = self._answer("CATALOG", "discover", "--config", self._path("config"))["catalog"]
        return [Stream(str(each["name"]), dict(each)) for each in catalog["streams"]]

    def stream(self, name: str) -> Stream:
        """Return the stream of that name. Raises SourceConfigError with those that there are."""
        offered = self.discover()
        for each in offered:
            if each.name == name:
                return each
        names = ", ".join(each.name for each in offered) or "none"
        raise SourceConfigError(f"{self.name} has no stream {name!r}; it offers {names}")

    def read(self, stream: Stream, state: Any | None = None) -> Iterator[Message]:
        """Yield its RECORD and STATE messages, in order; raise what it says went wrong, behind the last one.

        `state` is what an earlier read left. A caller that stops early ends the process.
        """
        mode = "incremental" if stream.incremental else "full_refresh"
        configured = {"stream": stream.raw, "sync_mode": mode, "destination_sync_mode": "append"}
        if stream.raw.get("default_cursor_field"):
            configured["cursor_field"] = stream.raw["default_cursor_field"]
        if stream.raw.get("source_defined_primary_key"):
            configured["primary_key"] = stream.raw["source_defined_primary_key"]
        self._write("catalog", {"streams": [configured]})
        arguments = ["read", "--config", self._path("config"), "--catalog", self._path("catalog")]
        if state is not None:
            self._write("state", state)
            arguments += ["--state", self._path("state")]
        for message in self._run(arguments):
            if message["type"] in ("RECORD", "STATE"):
                yield message

    def _path(self, name: str) -> str:
        return str(self._folder / f"{name}.json")

    def _write(self, name: str, content: Any) -> None:
        path = self._folder / f"{name}.json"
        path.touch(mode=0o600)
        path.write_bytes(orjson.dumps(content))

    def _answer(self, kind: str, *arguments: str) -> Message:
        found: Message | None = None
        for message in self._run(list(arguments), _ANSWER_S):
            if message["type"] == kind:
                found = message
        if found is None or not isinstance(found.get(_FIELDS[kind]), dict):
            raise NotASourceError(f"{self.name} gave no {kind} to `{arguments[0]}`")
        return found

    def _run(self, arguments: list[str], patience_s: float | None = None) -> Iterator[Message]:
        """Yield every message of one run; at its end raise what the source said, or how it ended."""
        argv = [part.replace("{folder}", str(self._folder)) for part in self.command] + arguments
        with (self._folder / "stderr").open("w+b") as log:
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=self.preexec,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise NotASourceError(f"{self.name} cannot be run: {error}") from error
            late = threading.Event()

            def give_up() -> None:
                late.set()
                _kill(process)

            watch = threading.Timer(patience_s or 0.0, give_up)
            watch.daemon = True
            if patience_s:
                watch.start()
            heard = _Heard()
            try:
                assert process.stdout is not None
                while line := process.stdout.readline(_LONGEST_LINE):
                    message = heard.take(line)
                    if message is not None:
                        yield message
                status = process.wait()
            finally:
                watch.cancel()
                _end(process)
            if late.is_set():
                raise SourceUnavailableError(
                    f"{self.name} did not answer `{arguments[0]}` in {patience_s:.0f} s"
                )
            if heard.error is not None:
                raise heard.failure(self.name)
            if status != 0:
                log.seek(0)
                words = heard.last_log or _last_line(log.read()) or "it said nothing"
                how = f"by signal {-status}" if status < 0 else f"with status {status}"
                kind = SourceFailedError if heard.messages else NotASourceError
                raise kind(f"{self.name} ended {how} at `{arguments[0]}`: {words}")


_FIELDS = {"SPEC": "spec", "CONNECTION_STATUS": "connectionStatus", "CATALOG": "catalog"}


class _Heard:
    """What a source said besides its messages, for when it ends badly."""

    def __init__(self) -> None:
        self.messages = 0
        self.error: dict[str, Any] | None = None
        self.last_log = ""

    def take(self, line: bytes) -> Message | None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            self.last_log = line[:2_000].decode(errors="replace").strip() or self.last_log
            return None
        self.messages += 1
        kind = message["type"]
        if kind == "LOG":
            log = message.get("log") or {}
            if log.get("level") in ("ERROR", "FATAL"):
                self.last_log = str(log.get("message", "")).partition("\n")[0]
        elif kind == "TRACE" and (message.get("trace") or {}).get("type") == "ERROR":
            self.error = message["trace"].get("error") or {}
        return message

    def failure(self, name: str) -> SourceFailedError:
        error = self.error or {}
        kind = _ERRORS.get(str(error.get("failure_type")), SourceFailedError)
        return kind(f"{name}: {str(error.get('message') or self.last_log or 'it failed').strip()}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the source and what it started: a source may have workers of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _columns(schema: Any, prefix: str = "") -> list[str]:
    found = []
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    for name, inner in properties.items():
        nested = _columns(inner, f"{prefix}{name}.")
        found += nested or [f"{prefix}{name}"]
    return found
