"""The process `lead-view`: leads, scored as they are written, and the model that learns what became of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from connectors.kafka import ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from features.plan import load as load_plan
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from streams.leads.scorer import STAGE, LeadModels
from streams.leads.store import LeadStore, LearnerStore
from streams.leads.weights import Weights
from streams.metrics import StageMeters
from streams.scoring.following import follow
from streams.views.lead_learner import TOPIC, LeadLearner
from streams.views.lead_view import LeadView
from streams.views.runner import ViewRunner
from streams.views.view import View

__all__ = ["run"]

_LOOK_S = 0.2


def run(settings: Settings, stop: threading.Event) -> None:
    """Score leads and learn from their outcomes until `stop`. One of the two views that fails ends both."""
    project, leads = settings.features.project, settings.leads
    registry = Registry(settings.registry)
    models = LeadModels(load_plan(project=project), settings.runtime, STAGE)
    weights = Weights()
    schemas = ("scores", TOPIC)

    def schema_ids() -> dict[str, int]:
        known = registry.register_all(list(schemas))
        return {name: known[f"{name}-value"] for name in schemas}

    view = LeadView(
        LeadStore(connect(settings.redis), project, leads.keep_days),
        models, weights, producer(settings.kafka, linger_ms=0), registry.schema, schema_ids,
    )  # fmt: skip
    learner = LeadLearner(LearnerStore(connect(settings.redis), project), registry.schema, weights)
    learner.positions()  # the first lead is scored with what was learnt before
    ensure_topics(settings.kafka, [*view.topics, *schemas, f"{TOPIC}.dlq"])
    failures: list[BaseException] = []
    looked = threading.Event()

    def runner(each: View) -> Callable[[], None]:
        def keep() -> None:
            try:
                ViewRunner(
                    settings.kafka, each, stop=stop, batch_records=leads.batch_records,
                    poll_ms=settings.features.poll_ms, group=f"{project}-{each.name}",
                ).run()  # fmt: skip
            except BaseException as error:
                failures.append(error)
                stop.set()

        return keep

    with LifecycleLog(settings.kafka, settings.registry) as log:

        def catch_up() -> Lifecycle:
            log.catch_up()
            return log.registry

        def refresh(known: Lifecycle) -> bool:
            changed = models.refresh(known)
            looked.set()
            return changed

        beside = [
            threading.Thread(
                target=follow,
                name="lifecycle",
                args=(refresh, catch_up, settings.scoring.follow_s, stop, StageMeters(STAGE)),
            ),
            threading.Thread(target=runner(learner), name=learner.name),
        ]
        for each in beside:
            each.start()
        # Who begins without having asked would pass over leads for which there is a champion.
        while not looked.wait(_LOOK_S) and not stop.is_set():
            pass
        runner(view)()
        for each in beside:
            each.join(30.0)
    if failures:
        raise failures[0]
