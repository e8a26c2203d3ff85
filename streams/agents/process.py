"""The process of one agent: built from settings, run until SIGTERM or SIGINT."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from connectors.images import ImageSource
from connectors.kafka import ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from connectors.settings import KafkaSettings, RedisSettings, RegistrySettings
from models.embedding.topics import Homes
from models.image import image_encoder
from models.lifecycle import Lifecycle
from models.lifecycle_log import LifecycleLog
from models.settings import ImageSettings
from models.text import TextSettings, text_encoder
from models.text.paced import PacedEncoder
from schemas.errors import DealerIQError
from streams.agents.chats import ChatStage
from streams.agents.embed import EmbedStage
from streams.agents.embedded import Embedded
from streams.agents.heads import INTENT, SENTIMENT, URGENCY, Heads, IntentHead, ToneHead
from streams.agents.images import ImageStage
from streams.agents.reading import Reader
from streams.agents.refresh import Refresher, RefreshLog
from streams.agents.settings import AgentSettings
from streams.agents.stage import Stage
from streams.agents.worker import BatchWorker
from streams.metrics import ENCODER_TOKENS, StageMeters, start_server
from streams.scoring.following import follow

__all__ = ["AGENTS", "UnknownAgentError", "main"]


class UnknownAgentError(DealerIQError):
    """No agent has this name."""

    remedy = "The agents are in streams/agents/process.py."
    exit_code = 2


_FIRST_LOOK_S = 10.0
"""How long an agent waits for the lifecycle before it begins without a model."""

_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter from another that asks for it; Python's own is ten times this.

An encoder asks for it after every few texts, while another thread decodes or delivers others.
"""


@dataclass(frozen=True)
class _Given:
    """What the settings say of the agents."""

    kafka: KafkaSettings
    registry: RegistrySettings
    agents: AgentSettings = field(default_factory=AgentSettings)
    text: TextSettings = field(default_factory=TextSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    image: ImageSettings = field(default_factory=ImageSettings)
    rate: int | None = None
    """Most texts a minute that the reindex agent encodes."""


def _chats(given: _Given) -> Stage:
    encoder = text_encoder(given.text, ENCODER_TOKENS.inc)
    intent = Heads(INTENT, IntentHead, encoder)
    tones = {
        "sentiment": Heads(SENTIMENT, ToneHead, encoder),
        "urgency": Heads(URGENCY, ToneHead, encoder),
    }

    def refresh(registry: Lifecycle) -> bool:
        changed = [intent.refresh(registry), *(each.refresh(registry) for each in tones.values())]
        return any(changed)

    _follow(refresh, given)
    asked = {name: each.current for name, each in tones.items()}
    return ChatStage(Reader(encoder, given.agents.remembered_readings, head=intent.current, tones=asked))


def _embed(given: _Given) -> Stage:
    encoder, store = text_encoder(given.text, ENCODER_TOKENS.inc), connect(given.redis)
    home = Homes(store).settle(encoder.identity)
    given.agents.batch_size = given.agents.embed_batch_size
    return EmbedStage(encoder, Embedded(store, home=home), home, at_once=given.agents.encoded_at_once)


def _reindex(given: _Given) -> Stage:
    encoder, store = text_encoder(given.text, ENCODER_TOKENS.inc), connect(given.redis)
    home = Homes(store).settle_beside(encoder.identity)
    given.agents.batch_size = given.agents.embed_batch_size
    if given.rate is not None:
        encoder = PacedEncoder(encoder, given.rate)
        # A crash encodes the batch in flight again.
        given.agents.batch_size = min(given.agents.batch_size, encoder.most)
    return EmbedStage(encoder, Embedded(store, home=home), home, "reindex-agent")


def _images(given: _Given) -> Stage:
    image = given.image
    source = ImageSource(
        folder=image.folder,
        hosts=image.hosts,
        most_bytes=image.most_bytes,
        timeout_s=image.timeout_s,
        patience_s=image.patience_s,
    )
    return ImageStage(image_encoder(image), Embedded(connect(given.redis), "image"), source, image.fetchers)


def _follow(refresh: Callable[[Lifecycle], bool], given: _Given) -> None:
    """Give `refresh` the lifecycle of models from now on; return after the first look, or without it."""
    looked, never = threading.Event(), threading.Event()
    meters = StageMeters("chat-agent")

    def first(registry: Lifecycle) -> bool:
        changed = refresh(registry)
        looked.set()
        return changed

    def run() -> None:
        while True:
            try:
                with LifecycleLog(given.kafka, given.registry) as log:

                    def catch_up() -> Lifecycle:
                        log.catch_up()
                        return log.registry

                    follow(first, catch_up, given.agents.follow_s, never, meters)
            except DealerIQError as error:  # the broker or the registry is away; agents wait for it, too
                meters.error(error)
                never.wait(given.agents.retry_most_s)

    threading.Thread(target=run, name="lifecycle", daemon=True).start()
    looked.wait(_FIRST_LOOK_S)


AGENTS: dict[str, Callable[[_Given], Stage]] = {
    "chat-agent": _chats,
    "embed-agent": _embed,
    "image-agent": _images,
    "reindex-agent": _reindex,
}


def main(
    name: str,
    kafka: KafkaSettings,
    registry: RegistrySettings,
    data_dir: Path,
    agents: AgentSettings | None = None,
    text: TextSettings | None = None,
    metrics_port: int | None = None,
    redis: RedisSettings | None = None,
    image: ImageSettings | None = None,
    rate: int | None = None,
    refresh: str = "never",
) -> int:
    """Run one agent until it is told to stop; return the process's exit code.

    `rate` is the most texts that the reindex agent encodes a minute, `refresh` the schedule by which an agent
    that encodes looks at everything again. `metrics_port` serves Prometheus (0: any free port; None: not at
    all). Raises UnknownAgentError, EncoderError, PartitionMismatchError, KafkaUnavailableError before anything
    is read.
    """
    if name not in AGENTS:
        raise UnknownAgentError(f"no agent is called {name!r}; there are {', '.join(AGENTS)}")
    agents = agents or AgentSettings()
    given = _Given(
        kafka,
        registry,
        agents,
        text or TextSettings(),
        redis or RedisSettings(),
        image or ImageSettings(),
        rate,
    )
    stage = AGENTS[name](given)
    ensure_topics(kafka, [*stage.sources, *(f"{each}.dlq" for each in stage.sources), stage.target])
    meters = StageMeters(name)
    if metrics_port is not None:
        start_server(metrics_port)
    # The worker itself retries, and can be stopped between two tries.
    client = Registry(registry.model_copy(update={"retry_s": 0.0}))
    worker = BatchWorker(stage, client, producer(kafka, linger_ms=0), agents, meters)
    refresher = None
    if stage.refreshed:
        asked = RefreshLog(connect(given.redis), name)
        refresher = Refresher(kafka, asked, refresh, client.schema, name)
    return _run(worker, kafka, agents, data_dir, meters, refresher)


def _run(
    worker: BatchWorker,
    kafka: KafkaSettings,
    agents: AgentSettings,
    data_dir: Path,
    meters: StageMeters,
    refresher: Refresher | None,
) -> int:
    import faust

    from streams.agents.app import Host, build

    sys.setswitchinterval(_SWITCH_S)
    host = Host(worker, agents, meters, refresher)
    app = build(host, kafka, agents, data_dir.resolve())
    process = faust.Worker(app, loglevel="WARNING", redirect_stdouts=False)
    code = 0
    try:
        process.execute_from_commandline()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        host.close()
    return 1 if host.failure is not None else code
