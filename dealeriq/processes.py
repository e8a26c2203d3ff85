"""Our own processes, as the runtime and a container start them: `python -m dealeriq.processes NAME`.

Each takes its addresses from the settings (file and environment), serves its metrics on `DEALERIQ_METRICS_PORT`
(unset: a free port, printed to stderr), and ends in good order on SIGTERM and SIGINT.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from dealeriq.settings import Settings, load

__all__ = ["PLAYED", "PROCESSES", "main"]

PLAYED = "player.json"
"""File in the data folder with what the player has produced, by topic."""


def feature_view(settings: Settings) -> None:
    """Fold the tile topics into the online store."""
    from connectors.redis import connect
    from connectors.registry import Registry
    from features.plan import load as load_plan
    from schemas.catalogue import topic
    from streams.views.feature_view import FeatureView
    from streams.views.runner import ViewRunner

    stop = _stop_on_signals()
    _serve_metrics()
    view = FeatureView(
        connect(settings.redis),
        load_plan(project=settings.features.project),
        Registry(settings.registry).schema,
        lambda name: settings.kafka.partitions_of(topic(name)),
    )
    runner = ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=settings.features.batch_records,
        poll_ms=settings.features.poll_ms,
        group=f"{settings.features.project}-{view.name}",
    )
    runner.run()


def lake_view(settings: Settings) -> None:
    """Append every topic to the lake, and keep its tables in order."""
    from connectors.lake import default_topics, lake_at
    from connectors.registry import Registry
    from schemas.catalogue import topic
    from streams.views.lake_upkeep import LakeUpkeep
    from streams.views.lake_view import LakeView
    from streams.views.runner import ViewRunner

    _stand_back(5)  # features are read within the second, the lake within ten
    stop = _stop_on_signals()
    _serve_metrics()
    names = settings.lake.topics or default_topics()
    for name in names:
        topic(name)
    root = lake_at(settings.lake, settings.data_dir)
    view = LakeView(root, names, Registry(settings.registry).schema)
    upkeep = LakeUpkeep(
        root,
        names,
        current_every_s=settings.lake.current_every_s,
        compact_every_s=settings.lake.compact_every_s,
        retention_h=settings.lake.retention_h,
    )
    beside = threading.Thread(target=upkeep.run, args=(stop,), name="lake-upkeep", daemon=True)
    beside.start()
    # The consumer itself gathers a batch: it waits until there are enough records, or long enough.
    runner = ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=settings.lake.flush_records,
        poll_ms=int(settings.lake.flush_s * 1000),
    )
    runner.run()
    beside.join(30)


def flink_jobs(settings: Settings) -> None:
    """Have the Flink jobs run, and submit again what the cluster lost."""
    from dealeriq.flink import keep_submitted

    stop = _stop_on_signals()
    _serve_metrics()
    keep_submitted(settings, stop)


def chat_agent(settings: Settings) -> None:
    """Enrich chats."""
    _agent(settings, "chat-agent")


def label_view(settings: Settings) -> None:
    """Join feedback to what it is about, as labels."""
    from connectors.kafka import ensure_topics, producer
    from connectors.redis import connect
    from connectors.registry import Registry
    from streams.labels.store import LabelStore
    from streams.views.label_view import LabelView
    from streams.views.runner import ViewRunner

    stop = _stop_on_signals()
    _serve_metrics()
    project = settings.features.project
    registry = Registry(settings.registry)
    view = LabelView(
        LabelStore(connect(settings.redis), project, settings.agents.subject_days),
        producer(settings.kafka, linger_ms=0),
        registry.schema,
        lambda: registry.register_all(["labels"])["labels-value"],
    )
    ensure_topics(settings.kafka, [*view.topics, *(f"{each}.dlq" for each in view.topics), "labels"])
    ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=_LABEL_BATCH,
        poll_ms=settings.features.poll_ms,
        group=f"{project}-{view.name}",
    ).run()


def score_view(settings: Settings) -> None:
    """Score entities whose features changed."""
    from dealeriq.scoring import keep_scoring

    _stand_back(5)  # who folds and serves goes first; a score is of what they have done
    stop = _stop_on_signals()
    _serve_metrics()
    keep_scoring(settings, stop)


def line_scorer(settings: Settings) -> None:
    """Score order lines as they pass."""
    from dealeriq.lines import keep_scoring_lines

    _stand_back(5)  # features go first
    stop = _stop_on_signals()
    _serve_metrics()
    keep_scoring_lines(settings, stop)


def inference(settings: Settings) -> None:
    """Answer the Open Inference Protocol with the models of the lifecycle."""
    from dealeriq.inference.process import run

    stop = _stop_on_signals()
    _serve_metrics()
    run(settings, stop)


def insight_view(settings: Settings) -> None:
    """Keep insights readable."""
    from connectors.kafka import ensure_topics
    from connectors.redis import connect
    from connectors.registry import Registry
    from streams.insights.store import InsightStore
    from streams.views.insight_view import InsightView
    from streams.views.runner import ViewRunner

    stop = _stop_on_signals()
    _serve_metrics()
    project, insights = settings.features.project, settings.insights
    store = InsightStore(connect(settings.redis), project, keep=insights.keep, keep_days=insights.keep_days)
    view = InsightView(store, Registry(settings.registry).schema)
    ensure_topics(settings.kafka, [*view.topics, *(f"{each}.dlq" for each in view.topics)])
    ViewRunner(
        settings.kafka, view, stop=stop, poll_ms=settings.features.poll_ms, group=f"{project}-{view.name}"
    ).run()


def graph_view(settings: Settings) -> None:
    """Keep the graph, and embed it where it has a schedule."""
    from connectors.kafka import ensure_topics, producer
    from connectors.neo4j.driver import connect
    from connectors.registry import Registry
    from streams.graph.embedding import GraphEmbedder
    from streams.graph.store import GraphStore
    from streams.schedule import EmbeddingSchedule
    from streams.views.graph_view import GRAPH_VIEW, GraphView
    from streams.views.runner import ViewRunner

    _stand_back(5)  # who serves features goes first
    stop = _stop_on_signals()
    _serve_metrics()
    with connect(settings.graph) as driver:
        store = GraphStore(driver, settings.graph.database, GRAPH_VIEW)
        registry = Registry(settings.registry)
        view = GraphView(store, registry.schema)
        ensure_topics(settings.kafka, [*view.topics, "embeddings"])
        if settings.graph.embedding_every_s is not None:
            schema_id = registry.register_all(["embeddings"])["embeddings-value"]
            embedder = GraphEmbedder(driver, settings.graph, producer(settings.kafka), schema_id)
            schedule = EmbeddingSchedule("graph-embedder", embedder, settings.graph.embedding_every_s)
            threading.Thread(target=schedule.run, args=(stop,), name="graph-embedder", daemon=True).start()
        ViewRunner(
            settings.kafka,
            view,
            stop=stop,
            batch_records=settings.graph.batch_records,
            poll_ms=_GRAPH_POLL_MS,
            group=f"{settings.features.project}-{view.name}",
        ).run()


def recommend_view(settings: Settings) -> None:
    """Keep recommendations true to the orders, and embed what dealers order where that has a schedule."""
    from connectors.kafka import ensure_topics, producer
    from connectors.redis import connect
    from connectors.registry import Registry
    from streams.publishing import VectorPublisher
    from streams.recommend.behaviour import BehaviourEmbedder
    from streams.recommend.store import RecommendStore
    from streams.schedule import EmbeddingSchedule
    from streams.views.recommend_view import RecommendView
    from streams.views.runner import ViewRunner

    _stand_back(5)  # features go first
    stop = _stop_on_signals()
    _serve_metrics()
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
    ViewRunner(
        settings.kafka,
        view,
        stop=stop,
        batch_records=recommend.batch_records,
        poll_ms=recommend.poll_ms,
        group=f"{project}-{view.name}",
    ).run()


def player(settings: Settings) -> None:
    """Play the carried orders, chats and feedback."""
    from connectors.player import Player, PlayOptions, PlayStats
    from streams.metrics import StageMeters

    stop = _stop_on_signals()
    _serve_metrics()
    meters = StageMeters("player")
    produced: dict[str, int] = {}

    def on_stats(stats: PlayStats) -> None:
        for topic, count in stats.produced.items():
            meters.count(topic, count - produced.get(topic, 0))
            produced[topic] = count
        fresh = settings.data_dir / f".{PLAYED}"
        fresh.write_text(json.dumps(stats.produced))
        fresh.replace(settings.data_dir / PLAYED)
        if stats.clock_ms is not None:
            meters.event_time(stats.clock_ms)

    rate = None if settings.demo.speed == "max" else float(settings.demo.speed)
    demo = settings.demo
    options = PlayOptions(topics=tuple(demo.topics), speed="max", rate=rate, orders=demo.orders)
    Player(settings.kafka, settings.registry, options, on_stats, stop).play()


def verifier(settings: Settings) -> None:
    """Compare a sample of the stores with the log, on a schedule."""
    from dealeriq.verifier import keep_verifying

    _stand_back(10)  # whoever serves or folds goes first; the runs inherit it
    stop = _stop_on_signals()
    _serve_metrics()
    keep_verifying(settings, stop)


def http(settings: Settings) -> None:
    """Serve features over HTTP."""
    from dealeriq.cli.serve import run

    run()


def embed_agent(settings: Settings) -> None:
    """Encode what changed of products and documents."""
    _agent(settings, "embed-agent")


def image_agent(settings: Settings) -> None:
    """Encode what changed of products' pictures."""
    _stand_back(5)  # a picture is a tenth of a second's work: texts go first
    _agent(settings, "image-agent")


def reindex_agent(settings: Settings) -> None:
    """Encode products and documents by the encoder that is to take the place of the one in use."""
    _agent(settings, "reindex-agent")


def search(settings: Settings) -> None:
    """Keep the index true to its topics, and answer searches."""
    from dealeriq.search.process import run

    stop = _stop_on_signals()
    _serve_metrics()
    run(settings, stop)


def warehouse(settings: Settings) -> None:
    """Build the warehouse over the lake on its schedule."""
    from connectors.lake import lake_at
    from dealeriq.warehouse.schedule import keep_built

    _stand_back(10)
    stop = _stop_on_signals()
    _serve_metrics()
    keep_built(settings.warehouse, lake_at(settings.lake, settings.data_dir), settings.data_dir, stop)


def trainer(settings: Settings) -> None:
    """Watch the served models and the vectors, and train when it is asked for."""
    from dealeriq.embedding_watch import EmbeddingWatch
    from dealeriq.monitor import Monitor
    from dealeriq.trainer import Trainer

    _stand_back(10)
    stop = _stop_on_signals()
    _serve_metrics()
    beside = []
    if settings.monitors.enabled:
        beside.append(threading.Thread(target=Monitor(settings, stop).run, name="monitor", daemon=True))
    if settings.embeddings.monitor and settings.search.address() is not None:
        watch = EmbeddingWatch(settings, stop)
        beside.append(threading.Thread(target=watch.run, name="embedding-watch", daemon=True))
    for each in beside:
        each.start()
    Trainer(settings, stop).run()
    for each in beside:
        each.join(30)


PROCESSES: dict[str, Callable[[Settings], None]] = {
    "feature-view": feature_view,
    "lake-view": lake_view,
    "flink-jobs": flink_jobs,
    "chat-agent": chat_agent,
    "label-view": label_view,
    "embed-agent": embed_agent,
    "image-agent": image_agent,
    "reindex-agent": reindex_agent,
    "search": search,
    "score-view": score_view,
    "line-scorer": line_scorer,
    "insight-view": insight_view,
    "inference": inference,
    "graph-view": graph_view,
    "recommend-view": recommend_view,
    "player": player,
    "verifier": verifier,
    "warehouse": warehouse,
    "trainer": trainer,
    "http": http,
}
_WITHOUT_KAFKA = ("http",)
_GRAPH_POLL_MS = 100  # a transaction costs as much as a hundred lines: a few more share it
_LABEL_BATCH = 1_000  # a batch waits for Kafka and twice for Redis: so many share that


def main(arguments: list[str] | None = None) -> int:
    """Run one process to its end; 0 after a clean one, else the error's own exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1 or given[0] not in PROCESSES:
        print(f"usage: python -m dealeriq.processes {{{'|'.join(PROCESSES)}}}", file=sys.stderr)
        return 2
    try:
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


def _stand_back(nice: int) -> None:
    """Leave the processor to others while it is short.

    Linux shares it among sessions first where sched_autogroup is on, and every process of ours has a session of
    its own: there only the session's own nice value counts.
    """
    os.nice(nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _serve_metrics() -> None:
    from streams.metrics import start_server

    server = start_server(int(os.environ.get("DEALERIQ_METRICS_PORT", "0")))
    print(f"metrics on port {server.port}", file=sys.stderr, flush=True)


def _agent(settings: Settings, name: str) -> None:
    from streams.agents.process import main as run

    port = int(os.environ.get("DEALERIQ_METRICS_PORT", "0"))
    folder = settings.data_dir / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    code = run(
        name,
        settings.kafka,
        settings.registry,
        folder,
        agents=settings.agents,
        text=settings.reindex.text if name == "reindex-agent" else settings.text,
        rate=settings.reindex.texts_per_minute,
        metrics_port=port,
        redis=settings.redis,
        image=settings.image,
    )
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
