"""What every process reports to Prometheus: records, lag, freshness and errors per stage.

One process has one registry. A stage asks for its meters once and updates them per batch, not per record:

    meters = StageMeters("feature-view")
    with meters.batch():
        ...
    meters.count("applied", 500)
    meters.freshness([0.031, 0.044])

`start_server(port)` serves the registry on `/metrics`; a process with its own web server calls `exposition()`.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

__all__ = [
    "CONTENT_TYPE",
    "REGISTRY",
    "BatchHistogram",
    "MetricsServer",
    "StageMeters",
    "exposition",
    "start_server",
]

CONTENT_TYPE = CONTENT_TYPE_LATEST

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

FRESHNESS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
DURATION_BUCKETS = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class BatchHistogram(Collector):
    """A Prometheus histogram with one label that takes a whole batch of values under one lock.

    The library's own histogram takes a lock and three updates for each value; at 100,000 records a second
    that costs more than the work it measures.
    """

    def __init__(
        self, name: str, documentation: str, label: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = tuple(sorted(buckets))
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, label: str, values: Iterable[float]) -> None:
        """Add every value, in the unit that the metric's name states."""
        bounds = self._bounds
        with self._lock:
            counts = self._counts.setdefault(label, [0] * (len(bounds) + 1))
            total = 0.0
            for value in values:
                counts[bisect_left(bounds, value)] += 1
                total += value
            self._sums[label] = self._sums.get(label, 0.0) + total

    def observe_repeated(self, label: str, value: float, times: int) -> None:
        """Add the same value `times` times (for a batch whose records share one measurement)."""
        with self._lock:
            counts = self._counts.setdefault(label, [0] * (len(self._bounds) + 1))
            counts[bisect_left(self._bounds, value)] += times
            self._sums[label] = self._sums.get(label, 0.0) + value * times

    def quantile(self, label: str, q: float) -> float | None:
        """The upper bound of the bucket that holds quantile `q` (0 to 1); None where nothing was observed."""
        with self._lock:
            counts = list(self._counts.get(label, ()))
        total = sum(counts)
        if not total:
            return None
        seen = 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            seen += count
            if seen >= q * total:
                return bound
        return float("inf")

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The family without samples: registering needs only its name."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=[self._label])]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The family with cumulative buckets, as Prometheus wants them."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        with self._lock:
            snapshot = {label: (list(counts), self._sums[label]) for label, counts in self._counts.items()}
        for label, (counts, total) in snapshot.items():
            cumulative, buckets = 0, []
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                cumulative += count
                buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(cumulative)))
            family.add_metric([label], buckets=buckets, sum_value=total)
        return [family]


RECORDS = Counter(
    "dealeriq_stage_records", "Records that left a stage, by outcome", ["stage", "outcome"], registry=REGISTRY
)
LAG = Gauge(
    "dealeriq_stage_lag_records",
    "Records between a stage's position and the end of the partition",
    ["stage", "topic", "partition"],
    registry=REGISTRY,
)
ENCODER_TOKENS = Counter(
    "dealeriq_encoder_tokens", "Tokens that a service has encoded for this process", registry=REGISTRY
)
ERRORS = Counter("dealeriq_errors", "Errors that a stage met, by class", ["stage", "kind"], registry=REGISTRY)
EVENT_TIME = Gauge(
    "dealeriq_stage_event_time_seconds", "Latest event time a stage has seen", ["stage"], registry=REGISTRY
)
FRESHNESS = BatchHistogram(
    "dealeriq_freshness_seconds",
    "Wall-clock seconds from producing a record to its effect being readable",
    "stage",
    FRESHNESS_BUCKETS,
    REGISTRY,
)
BATCH = BatchHistogram(
    "dealeriq_stage_batch_seconds", "Seconds that one batch took", "stage", DURATION_BUCKETS, REGISTRY
)


class StageMeters:
    """The meters of one stage of this process; label lookups are done once and kept."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._records: dict[str, Counter] = {}
        self._errors: dict[str, Counter] = {}
        self._lag: dict[tuple[str, int], Gauge] = {}
        self._event_time = EVENT_TIME.labels(stage)

    def count(self, outcome: str, records: int = 1) -> None:
        """Add `records` that ended as `outcome` (applied, produced, duplicate, dead_letter, ...)."""
        counter = self._records.get(outcome)
        if counter is None:
            counter = self._records[outcome] = RECORDS.labels(self.stage, outcome)
        counter.inc(records)

    def error(self, kind: str | BaseException, times: int = 1) -> None:
        """Count an error by its class name."""
        name = kind if isinstance(kind, str) else type(kind).__name__
        counter = self._errors.get(name)
        if counter is None:
            counter = self._errors[name] = ERRORS.labels(self.stage, name)
        counter.inc(times)

    def lag(self, topic: str, partition: int, records: int) -> None:
        """State how many records of a partition are still to be read."""
        gauge = self._lag.get((topic, partition))
        if gauge is None:
            gauge = self._lag[topic, partition] = LAG.labels(self.stage, topic, str(partition))
        gauge.set(records)

    def freshness(self, seconds: Iterable[float]) -> None:
        """Observe, for each record, the seconds from producing it to now, when its effect is readable."""
        FRESHNESS.observe(self.stage, seconds)

    def ages(self, seconds: Iterable[tuple[float, int]]) -> None:
        """Observe freshness that several records share: (seconds, records)."""
        for value, times in seconds:
            FRESHNESS.observe_repeated(self.stage, value, times)

    def event_time(self, milliseconds: int) -> None:
        """State the latest event time seen (ms since epoch)."""
        self._event_time.set(milliseconds / 1000.0)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Time one batch, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.took(time.perf_counter() - started)

    def took(self, seconds: float) -> None:
        """Observe how long one batch took."""
        BATCH.observe_repeated(self.stage, seconds, 1)


@dataclass(frozen=True)
class MetricsServer:
    """A running `/metrics` endpoint; `port` is the one really bound."""

    port: int
    _shutdown: object

    def close(self) -> None:
        """Stop serving and free the port."""
        server = self._shutdown
        server.shutdown()  # type: ignore[attr-defined]
        server.server_close()  # type: ignore[attr-defined]


def start_server(port: int = 0, host: str = "127.0.0.1") -> MetricsServer:
    """Serve this process's registry on `http://host:port/metrics` from a daemon thread (0 takes a free port).

    Raises OSError where the port is taken.
    """
    server, _thread = start_http_server(port, addr=host, registry=REGISTRY)
    return MetricsServer(server.server_port, server)


def exposition() -> bytes:
    """The registry in Prometheus text format."""
    return generate_latest(REGISTRY)
