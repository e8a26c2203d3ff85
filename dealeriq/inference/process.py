"""The inference process: it follows the lifecycle on the main thread, and answers on others."""

from __future__ import annotations

import threading

from dealeriq.http.server import beside
from dealeriq.inference.answering import Answering
from dealeriq.inference.app import InferenceApplication
from dealeriq.inference.rpc import start
from dealeriq.inference.versions import ServedVersions
from dealeriq.settings import Settings
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from streams.metrics import StageMeters
from streams.scoring.following import follow

__all__ = ["run"]

_GRACE_S = 5.0  # for the calls that run when it ends


def run(settings: Settings, stop: threading.Event) -> None:
    """Answer until `stop` is set. Raises AddressTakenError."""
    own = settings.inference
    token = settings.http.token.get_secret_value() if settings.http.token else None
    # It is what others ask: it asks nobody itself, least of all itself.
    versions = ServedVersions(settings.runtime.model_copy(update={"remote": None}), own.keep)
    answering = Answering(versions)
    application = InferenceApplication(answering, own.threads, own.max_body_bytes, token)
    server = beside(application, "inference", own.host, own.port)
    rpc = None
    try:
        limits = {"threads": own.threads, "most_bytes": own.max_body_bytes}
        rpc = start(answering, own.host, own.grpc_port, token=token, **limits)
        with LifecycleLog(settings.kafka, settings.registry) as lifecycle:

            def catch_up() -> Lifecycle:
                lifecycle.catch_up()
                return lifecycle.registry

            follow(versions.refresh, catch_up, own.follow_s, stop, StageMeters("inference"))
    finally:
        server.should_exit = True
        if rpc is not None:
            rpc.stop(_GRACE_S).wait()
        application.close()
