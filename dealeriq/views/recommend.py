"""The process `recommend-view`: what recommendations are made of, kept in Redis."""

from __future__ import annotations

import threading

from connectors.kafka import ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from streams.metrics import StageMeters
from streams.publishing import VectorPublisher
from streams.recommend.behaviour import BehaviourEmbedder
from streams.recommend.offer import RankerOffer
from streams.recommend.store import RecommendStore
from streams.schedule import EmbeddingSchedule
from streams.scoring.following import follow
from streams.views.recommend_view import RecommendView
from streams.views.runner import ViewRunner

__all__ = ["run"]


def run(settings: Settings, stop: threading.Event) -> None:
    """Keep recommendations true to the orders, and embed what dealers order on its schedule, until `stop`."""
    project, recommend = settings.features.project, settings.recommend
    store = RecommendStore(connect(settings.redis), project)
    registry = Registry(settings.registry)
    view = RecommendView(store, registry.schema, recommend)
    ensure_topics(settings.kafka, [*view.topics, *(f"{each}.dlq" for each in view.topics), "embeddings"])
    if recommend.behaviour_every_s is not None:
        schema_id = registry.register_all(["embeddings"])["embeddings-value"]
        publisher = VectorPublisher(
            producer(settings.kafka), schema_id, "behaviour", "dealeriq/behaviour-embedder"
        )
        own = RecommendStore(connect(settings.redis), project)  # the view's connection is the view's
        embedder = BehaviourEmbedder(own, recommend, publisher)
        schedule = EmbeddingSchedule("behaviour-embedder", embedder, recommend.behaviour_every_s)
        threading.Thread(target=schedule.run, args=(stop,), name="behaviour-embedder", daemon=True).start()
    with LifecycleLog(settings.kafka, settings.registry) as log:

        def catch_up() -> Lifecycle:
            log.catch_up()
            return log.registry

        offer = RankerOffer(connect(settings.redis), project, recommend)
        follower = threading.Thread(
            target=follow,
            args=(offer.refresh, catch_up, recommend.follow_s, stop, StageMeters(view.name)),
            name="lifecycle",
            daemon=True,
        )
        follower.start()
        ViewRunner(
            settings.kafka,
            view,
            stop=stop,
            batch_records=recommend.batch_records,
            poll_ms=recommend.poll_ms,
            group=f"{project}-{view.name}",
        ).run()
        follower.join(5.0)
