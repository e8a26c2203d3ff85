"""What the scheduled verifier reports to Prometheus."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from streams.metrics import REGISTRY
from streams.verify.findings import KINDS

__all__ = ["VerifyMeters"]

_RUNS = Counter("dealeriq_verify_runs", "Runs of the verifier, by outcome", ["outcome"], registry=REGISTRY)
_LAST = Gauge(
    "dealeriq_verify_last_run_seconds", "When the last finished run ended, Unix time", registry=REGISTRY
)
_FINDINGS = Gauge("dealeriq_verify_findings", "Findings of the last run, by kind", ["kind"], registry=REGISTRY)
_SECONDS = Gauge("dealeriq_verify_seconds", "How long the last run took", registry=REGISTRY)


class VerifyMeters:
    """The meters of the process that verifies; every kind is there from the start, as 0."""

    def __init__(self) -> None:
        for kind in KINDS:
            _FINDINGS.labels(kind).set(0)

    def ran(self, seconds: float, counts: Mapping[str, int] | None) -> None:
        """Report one run: its findings by kind, or None where it could not finish."""
        _SECONDS.set(seconds)
        if counts is None:
            _RUNS.labels("failed").inc()
            return
        _RUNS.labels("findings" if counts else "clean").inc()
        _LAST.set(time.time())
        for kind in KINDS:
            _FINDINGS.labels(kind).set(counts.get(kind, 0))
