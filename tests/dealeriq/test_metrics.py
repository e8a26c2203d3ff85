"""The meters of a process: cheap per batch, right in sum."""

import urllib.request

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from streams.metrics import BatchHistogram, StageMeters, start_server

VALUES = st.lists(st.floats(0, 100, allow_nan=False), max_size=50)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_a_batch_counts_as_the_library_counts_single_values(values: list[float]) -> None:
    buckets = (0.1, 1.0, 10.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    BatchHistogram("h", "h", "stage", buckets, ours).observe("a", values)
    single = Histogram("h", "h", ["stage"], registry=theirs, buckets=buckets).labels("a")
    for value in values:
        single.observe(value)

    def lines(registry: CollectorRegistry) -> list[str]:
        text = generate_latest(registry).decode()
        return sorted(line for line in text.splitlines() if "_bucket" in line or "_count" in line)

    assert lines(ours) == lines(theirs)


def test_a_process_is_scraped_on_the_port_it_says() -> None:
    meters = StageMeters("test-stage")
    meters.count("applied", 500)
    meters.lag("orders", 1, 42)
    meters.error(ValueError("x"))
    server = start_server()
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
    finally:
        server.close()
    assert 'dealeriq_stage_records_total{outcome="applied",stage="test-stage"} 500.0' in text
    assert 'dealeriq_stage_lag_records{partition="1",stage="test-stage",topic="orders"} 42.0' in text
    assert 'dealeriq_errors_total{kind="ValueError",stage="test-stage"} 1.0' in text
