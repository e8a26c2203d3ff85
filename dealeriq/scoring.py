"""The scoring process: follow the lifecycle of models, and read the tiles that they are about."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import redis.exceptions

from connectors.kafka import ensure_topics, producer
from connectors.log import get_logger
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.settings import Settings
from features.latest import LatestReader
from features.plan import load as load_plan
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from streams.scoring.price_board import prices_key
from streams.scoring.prices import PriceScorer
from streams.scoring.served import ServedModels
from streams.scoring.store import ScoreStore
from streams.views.runner import ViewRunner
from streams.views.score_view import ScoreView

__all__ = ["keep_scoring"]

_log = get_logger(__name__)
_LOOK_S = 0.2


def keep_scoring(settings: Settings, stop: threading.Event) -> None:
    """Score until `stop`. While no model is champion nothing is read but the lifecycle.

    When a first model of an entity becomes champion, that entity's tiles are read from the beginning: each one
    that the store holds is scored once, as it is now.
    """
    plan = load_plan(project=settings.features.project)
    store, registry = connect(settings.redis), Registry(settings.registry)
    models = ServedModels(plan, settings.runtime)
    prices = _ShownPrices(store, plan.project, models)
    ensure_topics(settings.kafka, ["scores"])
    schema_id = registry.register_all(["scores"])["scores-value"]
    with LifecycleLog(settings.kafka, settings.registry) as log:

        def catch_up() -> Lifecycle:
            prices.show()
            log.catch_up()
            return log.registry

        restart = _Restart(models, stop)
        follower = threading.Thread(
            target=models.follow,
            args=(catch_up, settings.scoring.follow_s, stop, restart.look),
            name="lifecycle",
            daemon=True,
        )
        follower.start()
        while not stop.is_set():
            topics = restart.begin()
            if not topics:
                stop.wait(_LOOK_S)
                continue
            _log.info("scoring", topics=topics)
            view = ScoreView(
                ScoreStore(store, plan.project), LatestReader(store, plan), models, plan, topics,
                producer(settings.kafka, linger_ms=0), registry.schema, lambda: schema_id, settings.scoring,
            )  # fmt: skip
            runner = ViewRunner(
                settings.kafka,
                view,
                stop=restart.event,
                batch_records=settings.scoring.batch_records,
                poll_ms=settings.scoring.poll_ms,
                group=f"{plan.project}-{view.name}",
            )
            runner.run()
        with contextlib.suppress(RuntimeError):
            follower.join(5.0)


class _ShownPrices:
    """What the champion of prices knows, kept where HTTP reads it."""

    def __init__(self, redis: Any, project: str, models: ServedModels) -> None:
        self._redis, self._key, self._models, self._shown = redis, prices_key(project), models, ""

    def show(self) -> None:
        """Show another version than the last; a store that is away gets it the next time."""
        for each in self._models.current().values():
            if isinstance(each.champion, PriceScorer) and each.champion.version != self._shown:
                try:
                    self._redis.set(self._key, each.champion.board.dump())
                except redis.exceptions.RedisError as error:
                    _log.warning("prices cannot be shown yet", error=str(error))
                else:
                    self._shown = each.champion.version


class _Restart:
    """Ends the runner when the system stops, or a model comes whose tiles it does not read yet."""

    def __init__(self, models: ServedModels, stop: threading.Event) -> None:
        self.event = threading.Event()
        self._models, self._stop, self._topics = models, stop, frozenset[str]()
        threading.Thread(target=self._wait, name="stop", daemon=True).start()

    def begin(self) -> list[str]:
        """Return the topics to read now."""
        self._topics = self._wanted()
        if not self._stop.is_set():
            self.event.clear()
            if self._wanted() != self._topics or self._stop.is_set():
                self.event.set()
        return sorted(self._topics)

    def look(self) -> None:
        """Called after a swap."""
        if not self._wanted() <= self._topics:
            self.event.set()

    def _wait(self) -> None:
        self._stop.wait()
        self.event.set()

    def _wanted(self) -> frozenset[str]:
        return frozenset(
            f"tiles.{view}" for each in self._models.current().values() for view in each.champion.triggers
        )
