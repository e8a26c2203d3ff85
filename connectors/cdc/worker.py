"""The Kafka Connect worker, by its REST interface: put a connector there, see how it does, take it away."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from connectors.settings import ConnectSettings
from schemas.errors import DealerIQError

__all__ = ["ConnectRefusedError", "ConnectUnavailableError", "Worker"]

_BUSY = 409  # the worker takes up a change; it asks to be asked again


class ConnectUnavailableError(DealerIQError):
    """The worker does not answer. What was captured waits in its topics and in the database's log."""

    remedy = "Check connect.url and that the worker is up; nothing is lost meanwhile."
    exit_code = 4


class ConnectRefusedError(DealerIQError):
    """The worker or the database refuses the connector."""

    remedy = "Mend what it says: address, user, password, wal_level=logical, rights to replicate."
    exit_code = 3


class Worker:
    """A client of one worker."""

    def __init__(self, settings: ConnectSettings) -> None:
        self._base = settings.address
        self._timeout_s = settings.timeout_s

    def put(self, name: str, options: dict[str, str]) -> None:
        """Create the connector or change its options. Raises ConnectRefusedError with the worker's words."""
        self._ask("PUT", f"/connectors/{quote(name)}/config", options)
        # One that failed before stays failed until it is told.
        self._ask("POST", f"/connectors/{quote(name)}/restart?includeTasks=true&onlyFailed=true", missing={})

    def delete(self, name: str) -> bool:
        """Take the connector away; True when it was there. Its offsets are kept."""
        return self._ask("DELETE", f"/connectors/{quote(name)}", missing=False) is not False

    def problem(self, name: str) -> str | None:
        """Return why the connector or its task failed, in its last cause's words; None while it does well."""
        status = self._ask("GET", f"/connectors/{quote(name)}/status", missing={})
        for part in [status.get("connector") or {}, *status.get("tasks", ())]:
            if part.get("state") == "FAILED":
                return _cause(str(part.get("trace") or "no reason given"))
        return None

    def running(self, name: str) -> bool:
        """Whether the connector's task runs."""
        status = self._ask("GET", f"/connectors/{quote(name)}/status", missing={})
        tasks = status.get("tasks", ())
        return bool(tasks) and all(each.get("state") == "RUNNING" for each in tasks)

    def _ask(self, method: str, path: str, body: Any = None, missing: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            self._base + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        give_up = time.monotonic() + 60.0
        while True:
            try:
                with urlopen(request, timeout=self._timeout_s) as answer:
                    content = answer.read()
                    return json.loads(content) if content else None
            except HTTPError as error:
                if error.code == 404 and missing is not None:
                    return missing
                if error.code == _BUSY and time.monotonic() < give_up:
                    time.sleep(0.5)
                    continue
                raise ConnectRefusedError(f"Kafka Connect refuses {method} {path}: {_words(error)}") from error
            except (URLError, OSError) as error:
                if time.monotonic() < give_up:
                    time.sleep(0.5)
                    continue
                raise ConnectUnavailableError(f"no Kafka Connect answers at {self._base}: {error}") from error


def _words(error: HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        found = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        found = text
    return " ".join(found.split())[:500]


def _cause(trace: str) -> str:
    causes = [line.removeprefix("Caused by: ") for line in trace.splitlines() if line.startswith("Caused by: ")]
    return (causes or trace.splitlines() or [""])[-1].strip()[:500]
