"""The Flink jobs of this system: where they run, and that they stay there."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

from prometheus_client import Gauge

from connectors.kafka import ensure_topics
from connectors.log import get_logger
from connectors.registry import Registry
from connectors.settings import AddressNotSetError
from dealeriq.runtime.jars import cache_dir, ensure
from dealeriq.runtime.java import java
from dealeriq.settings import Settings
from features.plan import load as load_plan
from streams.flink.errors import FlinkRefusedError, FlinkUnavailableError
from streams.flink.job import FlinkTarget, JobHandle, submit, submit_insights
from streams.flink.rest import FlinkRest
from streams.flink.spec import Timing
from streams.metrics import REGISTRY, StageMeters

__all__ = ["job_counters", "keep_submitted", "submit_jobs", "target"]

log = get_logger()
_LOOK_S = 2.0
_METERS = StageMeters("flink-jobs")
_JOBS = Gauge("dealeriq_flink_jobs", "Flink jobs that run because of this process", registry=REGISTRY)
_ENDED = ("FAILED", "CANCELED", "FINISHED")


def target(settings: Settings) -> FlinkTarget:
    """Return where jobs are submitted. Raises AddressNotSetError."""
    flink = settings.flink
    if flink.url is None or flink.lib_dir is None or flink.checkpoint_dir is None:
        raise AddressNotSetError("flink.url, flink.lib_dir and flink.checkpoint_dir must all be set")
    compiler = next(jar for jar in ensure("tools") if jar.name.startswith("ecj"))
    return FlinkTarget(
        url=flink.url,
        lib_dir=Path(flink.lib_dir),
        java=java(),
        compiler=compiler,
        cache=cache_dir() / "jobs",
        checkpoint_dir=flink.checkpoint_dir,
        state_dir=settings.data_dir / "flink" / "submitted",
    )


def submit_jobs(settings: Settings) -> list[JobHandle]:
    """Have every job run, the tiles' first, and their topics there; safe to repeat.

    Raises what `ensure_topics` and `streams.flink.job.submit` do.
    """
    flink = settings.flink
    ensure_topics(settings.kafka)
    place, schema_ids = target(settings), Registry(settings.registry).register_all()
    kafka, registry = settings.kafka.flink_properties(), settings.registry.flink_properties()
    handles = submit(
        place,
        load_plan(),
        schema_ids=schema_ids,
        kafka=kafka,
        registry=registry,
        parallelism=flink.parallelism,
        timing=Timing(
            flush_ms=flink.mini_batch_ms,
            tiles_per_s=flink.tiles_per_s,
            checkpoint_ms=flink.checkpoint_interval_ms,
            dedupe_horizon_ms=int(flink.deduplicate_horizon_h * 3_600_000) if flink.deduplicate else 0,
        ),
    )
    _JOBS.set(len(handles))
    if settings.scoring.enabled:
        handles.append(
            submit_insights(
                place,
                schema_ids=schema_ids,
                kafka=kafka,
                registry=registry,
                parallelism=settings.insights.parallelism,
                checkpoint_ms=settings.insights.checkpoint_interval_ms,
            )
        )
        _JOBS.set(len(handles))
    return handles


def keep_submitted(settings: Settings, stop: threading.Event) -> None:
    """Submit the jobs, then look every two seconds whether a restarted cluster lost them, until `stop`."""
    handles = submit_jobs(settings)
    for handle in handles:
        print(f"{handle.name} runs as {handle.job_id}", file=sys.stderr, flush=True)
    rest = FlinkRest(target(settings).url)
    told: dict[str, int] = {}
    while not stop.wait(_LOOK_S):
        try:
            _tell_failures(rest, handles, told)
            alive = {
                job["jid"] for job in rest.jobs() if job["state"] not in ("FAILED", "CANCELED", "FINISHED")
            }
            if not all(handle.job_id in alive for handle in handles):
                handles = submit_jobs(settings)
                log.warning("jobs submitted again", jobs=[handle.name for handle in handles])
        except FlinkUnavailableError as failure:
            log.warning("Flink does not answer", error=str(failure))


def _tell_failures(rest: FlinkRest, handles: list[JobHandle], told: dict[str, int]) -> None:
    """Say why a job was started again by its cluster; `told` is the time of the last failure told, by job."""
    for handle in handles:
        with contextlib.suppress(FlinkRefusedError):  # the cluster has forgotten the job
            failure = rest.failure(handle.job_id)
            if failure is not None and failure[0] > told.get(handle.job_id, 0):
                told[handle.job_id] = failure[0]
                _METERS.error("JobFailed")
                log.warning(
                    "job failed; Flink starts it again from its checkpoint, and nothing is lost",
                    job=handle.name,
                    reason=failure[1],
                )


def job_counters(settings: Settings) -> dict[str, int]:
    """Return events, duplicates, dead_letters, tiles and too_late of all running jobs together."""
    if settings.flink.url is None:
        return {}
    rest = FlinkRest(settings.flink.url)
    total: dict[str, int] = {}
    for job in rest.jobs():
        if job["state"] == "RUNNING":
            for name, count in rest.counters(job["jid"]).items():
                total[name] = total.get(name, 0) + int(count)
    return total
