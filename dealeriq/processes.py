"""Our own processes, as the runtime and a container start them: `python -m dealeriq.processes NAME`.

Each takes its addresses from the settings (file and environment), serves its metrics on `DEALERIQ_METRICS_PORT`
(unset: a free port, printed to stderr), and ends in good order on SIGTERM and SIGINT.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module

from dealeriq.pace import collect_less_often, stand_back
from dealeriq.settings import Settings, load

__all__ = ["HOSTED", "PROCESSES", "main"]

HOSTED: dict[str, tuple[str, int]] = {
    "feature-view": ("dealeriq.views.features:run", 0),
    "lake-view": ("dealeriq.views.lake:run", 5),  # features are read within the second, the lake within ten
    "flink-jobs": ("dealeriq.flink:keep_submitted", 0),
    "label-view": ("dealeriq.views.labels:run", 0),
    "search": ("dealeriq.search.process:run", 0),
    "score-view": ("dealeriq.scoring:keep_scoring", 5),  # a score is of what others have folded
    # It stands back from nobody: it reads what was before a line, and an insight may be waited for.
    "line-scorer": ("dealeriq.lines:keep_scoring_lines", 0),
    "insight-view": ("dealeriq.views.insights:run", 0),
    "inference": ("dealeriq.inference.process:run", 0),
    "graph-view": ("dealeriq.views.graph:run", 5),
    "lead-view": ("dealeriq.views.leads:run", 5),
    "recommend-view": ("dealeriq.views.recommend:run", 5),
    "hybrid-view": ("dealeriq.views.hybrid:run", 5),
    "player": ("dealeriq.demo.playing:run", 0),
    "verifier": ("dealeriq.verifier:keep_verifying", 10),  # the runs that it starts inherit it
    "warehouse": ("dealeriq.warehouse.schedule:run", 10),
    "trainer": ("dealeriq.learning:run", 10),
}
"""What is given the settings and an event that ends it, and how far it stands back from who serves features.

It is imported when it runs: no process carries what another needs.
"""


def _hosted(name: str) -> Callable[[Settings], None]:
    target, nice = HOSTED[name]

    def run(settings: Settings) -> None:
        if nice:
            stand_back(nice)
        module, _, function = target.partition(":")
        host: Callable[[Settings, threading.Event], None] = getattr(import_module(module), function)
        stop = _stop_on_signals()
        _serve_metrics()
        host(settings, stop)

    return run


def _http(settings: Settings) -> None:
    from dealeriq.cli.serve import run

    run()


def _agent(name: str, nice: int = 0) -> Callable[[Settings], None]:
    """A Faust agent: it has a loop, signals and metrics of its own."""

    def run(settings: Settings) -> None:
        if nice:
            stand_back(nice)
        from streams.agents.process import main

        folder = settings.data_dir / "agents"
        folder.mkdir(parents=True, exist_ok=True)
        code = main(
            name,
            settings.kafka,
            settings.registry,
            folder,
            agents=settings.agents,
            text=settings.reindex.text if name == "reindex-agent" else settings.text,
            rate=settings.reindex.texts_per_minute,
            metrics_port=_metrics_port(),
            redis=settings.redis,
            image=settings.image,
            refresh=settings.embeddings.refresh,
        )
        if code:
            raise SystemExit(code)

    return run


PROCESSES: dict[str, Callable[[Settings], None]] = {
    **{name: _hosted(name) for name in HOSTED},
    "chat-agent": _agent("chat-agent"),
    "embed-agent": _agent("embed-agent", 5),  # a backlog takes two cores: who answers goes first
    "image-agent": _agent("image-agent", 10),  # a picture is a tenth of a second's work: texts go first
    "reindex-agent": _agent("reindex-agent", 10),  # nobody searches yet what it encodes
    "http": _http,
}
_WITHOUT_KAFKA = ("http",)


def main(arguments: list[str] | None = None) -> int:
    """Run one process to its end; 0 after a clean one, else the error's own exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1 or given[0] not in PROCESSES:
        print(f"usage: python -m dealeriq.processes {{{'|'.join(PROCESSES)}}}", file=sys.stderr)
        return 2
    try:
        collect_less_often()
        settings = load()
        if given[0] not in _WITHOUT_KAFKA:
            from connectors.kafka import require_access

            require_access(settings.kafka)
        PROCESSES[given[0]](settings)
    except Exception as failure:
        from connectors.errors import translated

        error = translated(failure)
        if error is None:
            raise
        print(f"dealeriq {given[0]}: {error.told}", file=sys.stderr)
        return error.exit_code
    return 0


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _serve_metrics() -> None:
    from streams.metrics import start_server

    server = start_server(_metrics_port())
    print(f"metrics on port {server.port}", file=sys.stderr, flush=True)


def _metrics_port() -> int:
    return int(os.environ.get("DEALERIQ_METRICS_PORT", "0"))


if __name__ == "__main__":
    sys.exit(main())
