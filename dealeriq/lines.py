"""The process that scores order lines: follow the lifecycle of models, and read `orders` once one is served."""

from __future__ import annotations

import contextlib
import threading

import redis.exceptions

from connectors.kafka import ensure_topics
from connectors.log import get_logger
from connectors.redis import connect
from connectors.registry import Registry, RegistryRefusedError, RegistryUnavailableError
from dealeriq.settings import Settings
from features.plan import load as load_plan
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from models.oip.client import RemoteUnavailableError
from streams.lines.models import STAGE, LineModels
from streams.transactional import TransactionalRunner

__all__ = ["keep_scoring_lines"]

_log = get_logger(__name__)
_LOOK_S = 0.2
_RETRIED = (
    redis.exceptions.RedisError, RegistryUnavailableError, RegistryRefusedError, RemoteUnavailableError,
)  # fmt: skip


def keep_scoring_lines(settings: Settings, stop: threading.Event) -> None:
    """Score order lines until `stop`. While no model of order lines is champion only the lifecycle is read."""
    plan, scoring = load_plan(project=settings.features.project), settings.scoring
    registry = Registry(settings.registry)
    models = LineModels(plan, settings.runtime, STAGE)
    ensure_topics(settings.kafka, ["orders", "scores"])
    schema_id = registry.register_all(["scores"])["scores-value"]
    with LifecycleLog(settings.kafka, settings.registry) as log:

        def catch_up() -> Lifecycle:
            log.catch_up()
            return log.registry

        follower = threading.Thread(
            target=models.follow, args=(catch_up, scoring.follow_s, stop), name="lifecycle", daemon=True
        )
        follower.start()
        while not models.current() and not stop.wait(_LOOK_S):
            pass
        if not stop.is_set():
            # Who waits for a first model holds none of what reads columns: that is 45 MB.
            from streams.lines.stage import LineStage

            _log.info("scoring order lines", models=sorted(models.current()))
            stage = LineStage(models, connect(settings.redis), plan, registry.schema, schema_id, scoring)
            TransactionalRunner(
                settings.kafka,
                stage,
                name=STAGE,
                group=f"{plan.project}-{STAGE}",
                stop=stop,
                retried=_RETRIED,
                batch_records=scoring.line_batch_records,
                poll_ms=scoring.poll_ms,
                commit_ms=scoring.line_commit_ms,
                since_s=scoring.line_since_s,
            ).run()
        with contextlib.suppress(RuntimeError):
            follower.join(5.0)
