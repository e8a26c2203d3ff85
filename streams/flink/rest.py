"""The few calls of Flink's REST interface that we need."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from streams.flink.errors import FlinkRefusedError, FlinkUnavailableError

__all__ = ["FlinkRest"]


class FlinkRest:
    """A client of one cluster. Every call raises FlinkUnavailableError or FlinkRefusedError."""

    def __init__(self, url: str, timeout_s: float = 15.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """Return the answer of a GET."""
        return self._ask("GET", path, None)

    def jobs(self) -> list[dict[str, Any]]:
        """Return id (`jid`), `name` and `state` of every job that the cluster remembers, newest first."""
        jobs: list[dict[str, Any]] = self.get("/jobs/overview")["jobs"]
        return sorted(jobs, key=lambda job: -int(job["start-time"]))

    def cancel(self, job_id: str) -> None:
        """Stop a job at once; its checkpoints stay."""
        self._ask("PATCH", f"/jobs/{job_id}?mode=cancel", None)

    def stop(self, job_id: str, savepoint_dir: str, timeout_s: float = 60.0) -> str:
        """Stop a job with a savepoint and return where that lies."""
        body = {"targetDirectory": savepoint_dir, "drain": False}
        trigger = self._ask("POST", f"/jobs/{job_id}/stop", body)["request-id"]
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = self.get(f"/jobs/{job_id}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                operation = answer["operation"]
                if "location" in operation:
                    return str(operation["location"])
                reason = operation.get("failure-cause", {}).get("stack-trace", "no reason given")
                raise FlinkRefusedError(f"job {job_id} gave no savepoint: {str(reason)[:500]}")
            time.sleep(0.1)
        raise FlinkRefusedError(f"job {job_id} gave no savepoint in {timeout_s:.0f} s")

    def failure(self, job_id: str) -> tuple[int, str] | None:
        """Return when the job failed last (ms since the epoch) and the innermost reason, or None."""
        entries = self.get(f"/jobs/{job_id}/exceptions").get("exceptionHistory", {}).get("entries", [])
        if not entries:
            return None
        newest = max(entries, key=lambda entry: int(entry["timestamp"]))
        lines = str(newest["stacktrace"]).splitlines() or [str(newest["exceptionName"])]
        causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
        return int(newest["timestamp"]), (causes or lines)[-1].strip()[:500]

    def counters(self, job_id: str) -> dict[str, int]:
        """Return the job's own counters (`dealeriq_…`), summed over subtasks since its last start."""
        sums: dict[str, int] = {}
        for vertex in self.get(f"/jobs/{job_id}")["vertices"]:
            path = f"/jobs/{job_id}/vertices/{vertex['id']}/metrics"
            names = [each["id"] for each in self.get(path) if ".dealeriq_" in each["id"]]
            if names:
                for each in self.get(f"{path}?get={','.join(name.replace(' ', '%20') for name in names)}"):
                    short = each["id"].rpartition(".dealeriq_")[2]
                    sums[short] = sums.get(short, 0) + int(each["value"])
        return sums

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refusal:
            words = refusal.read(2000).decode(errors="replace")
            raise FlinkRefusedError(
                f"Flink answered {refusal.code} to {method} {path}: {words[:500]}"
            ) from None
        except (OSError, ValueError) as failure:
            raise FlinkUnavailableError(f"Flink at {self._url} does not answer: {failure}") from failure
