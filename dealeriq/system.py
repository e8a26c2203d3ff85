"""The whole system: what must be there before anything runs, and every process of ours, in order."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from connectors.kafka import ensure_topics
from connectors.redis import refuse_cluster
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.runtime.services.probe import answers

__all__ = [
    "GRAPH",
    "HYBRID",
    "IMAGES",
    "INFERENCE",
    "LEADS",
    "LINES",
    "PROCESSES",
    "RECOMMENDING",
    "REINDEX",
    "SCORING",
    "SEARCH",
    "SERVICES",
    "System",
]

SERVICES = ("kafka", "registry", "redis", "flink")
FIRST = ("flink-jobs", "feature-view", "http")
"""What the first feature needs. On few cores it is read sooner when the others start after these."""
SCORING = ("score-view", "insight-view")
LINES = ("line-scorer",)
"""What scores order lines, with scoring.lines beside scoring.enabled."""
LEADS = ("lead-view",)
"""What scores leads, with leads.enabled."""
RECOMMENDING = ("recommend-view",)
PROCESSES = (
    *FIRST,
    "lake-view",
    "chat-agent",
    "label-view",
    "verifier",
    "trainer",
)
SEARCH = ("embed-agent", "search")
"""What runs beside them with search.enabled."""
IMAGES = ("image-agent",)
"""What runs beside them with image.enabled."""
REINDEX = ("reindex-agent",)
"""What runs beside them with reindex.enabled."""
INFERENCE = ("inference",)
"""What runs beside them with inference.enabled."""
GRAPH = ("graph-view",)
"""What runs beside them, and beside Neo4j, with graph.enabled."""

HYBRID = ("hybrid-view",)
"""What runs beside them with hybrid.enabled."""


@dataclass
class System:
    """The processes of one running system, started under a supervisor."""

    supervisor: Supervisor
    clock: str = "wall"
    metrics: dict[str, str] = field(default_factory=dict)
    """Address of each process's metrics."""

    def start(
        self, readable: Callable[[], None] = lambda: None, beside: Callable[[], None] = lambda: None
    ) -> None:
        """Create topics, register schemas, start every process. Safe on a data folder that ran before.

        `readable` is called as soon as features can be read, before the other processes are there; `beside`
        starts what is to start together with the first ones.

        Raises what the supervisor, Kafka and the registry raise.
        """
        settings = self.supervisor.settings
        if settings.graph.enabled:
            self.supervisor.start_services("neo4j")
        refuse_cluster(settings.redis)
        ensure_topics(settings.kafka)
        Registry(settings.registry).register_all()
        port = self.supervisor.port("http", settings.http.port)
        settings.http.port = port
        settings.http.url = settings.http.url or f"http://127.0.0.1:{port}"
        if self.clock == "event":
            settings.http.clock = "event"
        if settings.search.enabled:
            settings.search.port = self.supervisor.port("search", settings.search.port)
            settings.search.url = settings.search.address()
        if settings.inference.enabled:
            settings.inference.port = self.supervisor.port("inference", settings.inference.port)
            settings.inference.grpc_port = self.supervisor.port("inference-grpc", settings.inference.grpc_port)
        names = [
            *PROCESSES,
            *(SEARCH if settings.search.enabled else ()),
            *(IMAGES if settings.image.enabled else ()),
            *(REINDEX if settings.reindex.enabled else ()),
            *(GRAPH if settings.graph.enabled else ()),
            *(HYBRID if settings.hybrid.enabled else ()),
            *(SCORING if settings.scoring.enabled else ()),
            *(LINES if settings.scoring.enabled and settings.scoring.lines else ()),
            *(LEADS if settings.leads.enabled else ()),
            *(RECOMMENDING if settings.recommend.enabled else ()),
            *(INFERENCE if settings.inference.enabled else ()),
            *(["warehouse"] if settings.warehouse.every_s is not None else []),
        ]
        for group in (names[: len(FIRST)], names[len(FIRST) :]):
            for name in group:
                self.start_process(name, wait_s=0)
            if group[0] == FIRST[0]:
                beside()
            for name in group:
                self.supervisor.wait_ready(name)
            self.supervisor.publish()
            if group[0] == FIRST[0]:
                readable()

    def start_process(
        self, name: str, *, once: bool = False, wait_s: float = 60.0, variables: Mapping[str, str] | None = None
    ) -> None:
        """Start one process of ours with its metrics on a port of this data folder."""
        settings = self.supervisor.settings
        if name == "http":
            address = settings.http.url or ""
            probe = f"{address}/healthz"
            self.metrics[name] = f"{address}/metrics"
        else:
            port = self.supervisor.port(f"{name}-metrics", 9_400 + len(self.metrics))
            address = f"http://127.0.0.1:{port}"
            probe = self.metrics[name] = f"{address}/metrics"
        self.supervisor.start_process(
            name,
            [sys.executable, "-m", "dealeriq.processes", name],
            lambda: _is_ready(name, probe),
            environment={"DEALERIQ_METRICS_PORT": address.rpartition(":")[2], **(variables or {})},
            address=address,
            once=once,
            wait_s=wait_s,
        )

    def meters(self, process: str | None = None, metric: str | None = None) -> dict[str, dict[str, float]]:
        """Return every sample of every process: process, then `name{labels}`. One that is away is left out.

        To tell all takes a process some milliseconds: who asks often names a `process`, and a `metric` of it.
        """
        found = {}
        for name, address in self.metrics.items():
            if process not in (None, name):
                continue
            try:
                asked = address if metric is None else f"{address}?name[]={metric}"
                with urllib.request.urlopen(asked, timeout=1) as answer:
                    found[name] = _samples(answer.read().decode())
            except OSError:
                continue
        return found


def _is_ready(name: str, probe: str) -> bool:
    """Whether a process does its work: of the Flink jobs' one, whether they are submitted."""
    body = answers(probe)
    return body is not None and (name != "flink-jobs" or b"\ndealeriq_flink_jobs 0.0" not in body)


def _samples(text: str) -> dict[str, float]:
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples
