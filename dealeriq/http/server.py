"""Run the application under uvicorn: uvloop, httptools, no access log, one process."""

from __future__ import annotations

import socket
import sys
import threading
from typing import Any

import uvicorn

from dealeriq.http.app import Application
from dealeriq.http.forward import Forwarder
from dealeriq.http.graph import GraphSource
from dealeriq.http.insights import InsightSource
from dealeriq.http.prices import PriceSource
from dealeriq.http.recommendations import RecommendationSource
from dealeriq.http.settings import HttpSettings
from dealeriq.http.source import FeatureSource
from schemas.errors import DealerIQError

__all__ = ["AddressTakenError", "beside", "listen", "serve"]


class AddressTakenError(DealerIQError):
    """The host and port cannot be listened on. Remedy: another `http.port`, or 0 for a free one."""

    remedy = "Set http.port (DEALERIQ_HTTP__PORT) to another port, or to 0 for a free one."
    exit_code = 3


def listen(settings: HttpSettings) -> socket.socket:
    """Take the port; raises AddressTakenError."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise AddressTakenError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}."
        ) from error


def serve(
    settings: HttpSettings,
    source: FeatureSource,
    listener: socket.socket | None = None,
    *,
    search: Forwarder | None = None,
    insights: InsightSource | None = None,
    recommendations: RecommendationSource | None = None,
    graph: GraphSource | None = None,
    prices: PriceSource | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight get 5 seconds to finish, and streams end at once."""
    servers: list[uvicorn.Server] = []

    def stopping() -> bool:
        return bool(servers[0].should_exit)

    config = uvicorn.Config(
        Application(
            settings,
            source,
            search=search,
            insights=insights,
            stopping=stopping,
            recommendations=recommendations,
            graph=graph,
            prices=prices,
        ),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=5,
    )
    servers.append(uvicorn.Server(config))
    servers[0].run(sockets=[listener or listen(settings)])


def beside(application: Any, name: str, host: str, port: int) -> uvicorn.Server:
    """Serve an ASGI application on a thread, and say where; it ends soon after `should_exit` is set.

    Uvicorn leaves the signals to the main thread there, which ends in good order. Raises AddressTakenError.
    """
    listener = listen(HttpSettings(host=host, port=port))
    bound = listener.getsockname()
    print(f"{name} on http://{bound[0]}:{bound[1]}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        application, loop="uvloop", http="httptools", ws="none", lifespan="off", access_log=False,
        log_level="warning", server_header=False, date_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name=f"{name}-http", daemon=True
    ).start()
    return server
