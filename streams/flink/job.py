"""Submit, watch and stop the Flink jobs.

Two fold topics into feature tiles: `tiles-orders` for the views of orders, `tiles-engagement` for those of
chats and feedback. A third, `insights`, keeps the state of insight rules over the scores. A job is known by its
name and the fingerprint of what its state depends on: with the same fingerprint it goes on from its newest
checkpoint, with another it starts afresh from the log: a new aggregate needs every event again.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.plan import Plan, ViewPlan
from streams.flink.build import job_jar
from streams.flink.checkpoints import newest
from streams.flink.errors import FlinkRefusedError, FlinkUnavailableError
from streams.flink.rest import FlinkRest
from streams.flink.spec import Timing, insight_spec, job_spec

__all__ = ["FlinkTarget", "JobHandle", "jobs_of", "status", "stop", "submit", "submit_insights"]

_STATE_VERSION = 3  # raise it with any change to what the Java operators keep
_ALIVE = frozenset(("INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "FAILING", "RECONCILING"))
_TILES, _INSIGHTS = "dealeriq.flink.TileJob", "dealeriq.flink.InsightJob"
_INSIGHT_STATE = 1  # raise it with any change to what the insight job keeps


@dataclass(frozen=True)
class FlinkTarget:
    """A session cluster and what a submission to it needs.

    `url` is the REST address; `lib_dir` holds Flink's jars with the Kafka and Avro connectors; `java` is a Java
    runtime's command, `compiler` the ecj jar, `cache` a folder for the compiled job; `checkpoint_dir` is a URI
    that both JobManager and TaskManager reach; `state_dir` a local folder that remembers what was submitted.
    """

    url: str
    lib_dir: Path
    java: str
    compiler: Path
    cache: Path
    checkpoint_dir: str
    state_dir: Path


@dataclass(frozen=True)
class JobHandle:
    """A submitted job. `resumed_from` is the checkpoint it went on from, None where it began with the log."""

    name: str
    job_id: str
    checkpoint_dir: str
    resumed_from: str | None = None


def jobs_of(plan: Plan) -> dict[str, list[ViewPlan]]:
    """Return the views of each job, by the job's name; a job without views is left out."""
    jobs: dict[str, list[ViewPlan]] = {}
    for view in plan.views.values():
        jobs.setdefault("tiles-orders" if view.source_topic == "orders" else "tiles-engagement", []).append(
            view
        )
    return jobs


def submit(
    target: FlinkTarget,
    plan: Plan,
    *,
    schema_ids: Mapping[str, int],
    kafka: Mapping[str, str],
    registry: Mapping[str, str],
    parallelism: int,
    timing: Timing | None = None,
    from_checkpoint: str | None = None,
    names: Mapping[str, str] | None = None,
    prefix: str = "",
) -> list[JobHandle]:
    """Have every job of the plan run on the cluster; safe to repeat.

    A job that runs already is left alone. One with the same name and another fingerprint is cancelled first.
    `kafka` and `registry` are what the `flink_properties()` of their settings gave, `schema_ids` what
    `Registry.register_all()` gave; topics must exist. `from_checkpoint` is a URI that every job starts from
    instead of its own newest checkpoint. `names` and `prefix` rename topics and jobs.
    Raises FlinkUnavailableError, FlinkRefusedError, JobBuildError.
    """
    handles = []
    for base, views in jobs_of(plan).items():
        name = prefix + base
        spec = job_spec(
            name,
            views,
            schema_ids,
            distinct_precision=plan.distinct_precision,
            kafka=kafka,
            registry=registry,
            flink={},
            timing=timing,
            names=names,
        )
        handles.append(
            _have_running(target, name, _TILES, spec, _fingerprint(spec), parallelism, from_checkpoint)
        )
    return handles


def submit_insights(
    target: FlinkTarget,
    *,
    schema_ids: Mapping[str, int],
    kafka: Mapping[str, str],
    registry: Mapping[str, str],
    parallelism: int,
    checkpoint_ms: int,
    names: Mapping[str, str] | None = None,
    prefix: str = "",
) -> JobHandle:
    """Have the insight job run; arguments and errors are those of `submit`. Safe to repeat."""
    name = f"{prefix}insights"
    spec = insight_spec(
        name, schema_ids, kafka=kafka, registry=registry, checkpoint_ms=checkpoint_ms, names=names
    )
    fingerprint = hashlib.sha256(f"{_INSIGHT_STATE} {spec['scores']['name']}".encode()).hexdigest()[:8]
    return _have_running(target, name, _INSIGHTS, spec, fingerprint, parallelism)


def status(target: FlinkTarget, handle: JobHandle) -> dict[str, Any]:
    """Return `state`, `counters` (events, duplicates, dead_letters, tiles, too_late), the last `checkpoint`."""
    rest = FlinkRest(target.url)
    job = rest.get(f"/jobs/{handle.job_id}")
    completed = (rest.get(f"/jobs/{handle.job_id}/checkpoints").get("latest") or {}).get("completed") or {}
    return {
        "name": handle.name,
        "job_id": handle.job_id,
        "state": job["state"],
        "counters": rest.counters(handle.job_id),
        "checkpoint": completed.get("external_path"),
        "checkpoint_bytes": completed.get("state_size"),
    }


def stop(target: FlinkTarget, handle: JobHandle) -> str:
    """Stop a job with a savepoint in its checkpoint folder, so that the next submission goes on from it."""
    savepoint = FlinkRest(target.url).stop(handle.job_id, handle.checkpoint_dir)
    _remember(target, handle, savepoint)
    return savepoint


def _have_running(
    target: FlinkTarget,
    name: str,
    main: str,
    spec: dict[str, Any],
    fingerprint: str,
    parallelism: int,
    from_checkpoint: str | None = None,
) -> JobHandle:
    """Leave the job alone if it runs; else start it where it left off."""
    rest = FlinkRest(target.url)
    running = {job["name"]: job for job in reversed(rest.jobs()) if job["state"] in _ALIVE}
    checkpoints = f"{target.checkpoint_dir.rstrip('/')}/{name}/{fingerprint}"
    spec["job"] = f"{name} {fingerprint}"
    if (already := running.get(spec["job"])) is not None:
        return JobHandle(name, already["jid"], checkpoints)
    for other, job in running.items():
        if other.rpartition(" ")[0] == name:
            rest.cancel(job["jid"])
    start = from_checkpoint or newest(checkpoints) or _remembered(target, name, checkpoints)
    jar = job_jar(
        java=target.java,
        compiler=target.compiler,
        classpath=target.lib_dir.glob("*.jar"),
        cache=target.cache,
    )
    spec["flink"] |= _addressed(target.url, jar, parallelism, checkpoints, start)
    handle = JobHandle(name, _run(target, jar, main, spec), checkpoints, start)
    _remember(target, handle)
    return handle


def _fingerprint(spec: Mapping[str, Any]) -> str:
    """Name what the state depends on: sources, keys, entities, grains, accumulators; not addresses."""
    kept = [
        [topic["name"], topic["key"], topic["distinct_precision"]]
        + [
            [view[part] for part in ("name", "topic", "entity", "grains_ms", "columns")]
            for view in topic["views"]
        ]
        for topic in spec["topics"]
    ]
    return hashlib.sha256(json.dumps([_STATE_VERSION, kept]).encode()).hexdigest()[:8]


def _addressed(url: str, jar: Path, parallelism: int, checkpoints: str, start: str | None) -> dict[str, str]:
    scheme, _, place = url.partition("://")
    host, _, port = place.rstrip("/").partition(":")
    flink = {
        "execution.target": "remote",
        "execution.attached": "false",
        "rest.address": host,
        "rest.port": port or ("443" if scheme == "https" else "80"),
        "security.ssl.rest.enabled": str(scheme == "https").lower(),
        "pipeline.jars": jar.resolve().as_uri(),
        "parallelism.default": str(parallelism),
        "execution.checkpointing.dir": checkpoints,
    }
    if start is not None:
        flink["execution.state-recovery.path"] = start
    return flink


def _run(target: FlinkTarget, jar: Path, main: str, spec: Mapping[str, Any]) -> str:
    """Build the graph in a short-lived Java process and return the id under which the cluster took it."""
    opened = [
        f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.util", "java.lang", "java.net")
    ]
    classpath = f"{jar}:{target.lib_dir}/*"
    command = [
        target.java,
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *opened,
        "-cp",
        classpath,
        main,
    ]
    try:
        done = subprocess.run(
            command, input=json.dumps(spec), capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.SubprocessError) as failure:
        raise FlinkRefusedError(f"the job {spec['job']} could not be submitted: {failure}") from failure
    job_id = next((line[4:] for line in done.stdout.splitlines() if line.startswith("job ")), None)
    if done.returncode != 0 or job_id is None:
        words = done.stderr.strip()
        causes = [line for line in words.splitlines() if line.startswith(("Caused by", "Exception"))]
        reason = (causes[-1] if causes else words[-500:]) or "it said nothing"
        kind = FlinkUnavailableError if "ConnectException" in words else FlinkRefusedError
        raise kind(f"the job {spec['job']} was not taken by Flink at {target.url}: {reason[:500]}")
    return job_id.strip()


def _remember(target: FlinkTarget, handle: JobHandle, savepoint: str | None = None) -> None:
    target.state_dir.mkdir(parents=True, exist_ok=True)
    file = target.state_dir / f"{handle.name}.json"
    record = {"job_id": handle.job_id, "checkpoint_dir": handle.checkpoint_dir, "savepoint": savepoint}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(record))
    fresh.replace(file)


def _remembered(target: FlinkTarget, name: str, checkpoints: str) -> str | None:
    """Ask the state file, then the cluster, where checkpoints cannot be listed from here (an object store)."""
    try:
        record = json.loads((target.state_dir / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    if record.get("checkpoint_dir") != checkpoints:
        return None
    if record.get("savepoint"):
        return str(record["savepoint"])
    try:
        known = FlinkRest(target.url).get(f"/jobs/{record['job_id']}/checkpoints")
    except FlinkRefusedError:
        return None
    path = ((known.get("latest") or {}).get("completed") or {}).get("external_path")
    return str(path) if path else None
