"""The verifier of a system that these settings describe, once and on a schedule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from connectors.log import get_logger
from dealeriq.runtime.child import die_with_parent
from dealeriq.settings import Settings

if TYPE_CHECKING:
    from streams.verify.verifier import Verifier

__all__ = ["keep_verifying", "verifier"]

log = get_logger()
_SHOWN = 20


def verifier(
    settings: Settings,
    *,
    progress: Callable[[str], None] = lambda line: None,
    pause: Callable[[], None] = lambda: None,
) -> Verifier:
    """Return a verifier with the system's addresses. Raises AddressNotSetError."""
    from connectors.lake import lake_at
    from connectors.redis import connect
    from connectors.registry import Registry
    from features.plan import load
    from streams.verify.verifier import Verifier

    plan = load(project=settings.features.project)
    registry, store = Registry(settings.registry), connect(settings.redis)
    lake = lake_at(settings.lake, settings.data_dir)
    graph = None
    if settings.graph.url is not None:
        from connectors.neo4j.driver import connect as connect_graph

        graph = connect_graph(settings.graph), settings.graph.database
    hybrid = None
    if settings.hybrid.enabled:
        from dealeriq.kinds import weights_of
        from models.embedding.topics import Homes
        from streams.verify.hybrid import HybridSource

        group = f"{settings.features.project}-hybrid-view"
        hybrid = HybridSource(weights_of(settings), group, Homes(store).in_use)
    index = None
    if settings.search.address() is not None:
        from dealeriq.search.asking import asker

        index = asker(settings)
    return Verifier(
        settings.kafka, registry, store, plan, lake=lake, lake_topics=settings.lake.topics,
        index=index, graph=graph, hybrid=hybrid, progress=progress, pause=pause,
    )  # fmt: skip


def keep_verifying(settings: Settings, stop: threading.Event) -> None:
    """Run `dealeriq verify` on a sample again and again until `stop`, and report each run to Prometheus.

    Each run is a process of its own, so that its memory is given back.
    """
    from streams.verify.meters import VerifyMeters

    meters = VerifyMeters()
    while not stop.wait(settings.verify.every_s):
        began = time.monotonic()
        report = _run(settings, stop)
        if stop.is_set():
            return
        meters.ran(time.monotonic() - began, None if report is None else report["counts"])
        for finding in [] if report is None else report["findings"][:_SHOWN]:
            log.warning("verify found", **finding)


def _run(settings: Settings, stop: threading.Event) -> dict[str, Any] | None:
    """Return the report of one run; None where there is none: a service was away, or it took too long."""
    command = [sys.executable, "-m", "dealeriq", "verify", "--json", "--gentle"]
    command += ["--sample", str(settings.verify.sample)]
    environment = os.environ | settings.environment() | {"OMP_NUM_THREADS": "1"}
    deadline = time.monotonic() + settings.verify.most_s
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # that it may stand back from all others, its parent too
        preexec_fn=die_with_parent,
    ) as child:
        while True:
            try:
                out, said = child.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if stop.is_set() or time.monotonic() > deadline:
                    child.kill()
    if child.returncode in (0, 1) and out.startswith("{"):
        report: dict[str, Any] = json.loads(out)
        return report
    if not stop.is_set():
        log.warning("verify did not finish", exit_code=child.returncode, said=said.strip()[-500:])
    return None
