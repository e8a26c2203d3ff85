"""Chats enriched a second by the chat agent, beside the raw encoder on the same texts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import TIMESTAMP_CREATE_TIME, TopicPartition

from benchmarks.contract import Claim, Outcome, middle, ratio
from connectors import demo_data
from connectors.kafka import consumer, ensure_topics, producer
from connectors.messages import MessageWriter
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from models.text import packaged_encoder

__all__ = ["measure"]

_PATIENCE_S = 600.0
_HOW = """{count:,} chats of the carried year, each text once, lie in the topic before the agent starts. Its
rate is from the first batch in `chats.enriched` to the last: reading, checking, encoding, reading intent
and tone, producing, acknowledging, on real Kafka. The raw encoder gets the same texts in one call, in the best
order there is: all sorted by length, in batches of {inner}, on as many threads ({threads}). They take turns,
{repeats} times, each time with other texts."""
_WHY = "The broker and the registry run on the same two cores."


def measure(short: bool = False, chats: str = "", repeats: str = "") -> Outcome:
    """The agent and the encoder, in turn, on texts that neither has seen."""
    count = int(chats or (512 if short else 4_096))
    times = int(repeats or (1 if short else 3))
    settings = load(running=False)
    year = demo_data.source("chats")
    frame = year.frame(0, min(len(year), count * times * 2)).unique("text", keep="first", maintain_order=True)
    encoder = packaged_encoder(settings.text)
    raw: list[float] = []
    agent: list[float] = []
    for turn in range(times):
        some = frame[turn * count : (turn + 1) * count]
        texts = some["text"].to_list()
        encoder.encode(texts[:64])
        began = time.perf_counter()
        encoder.encode(texts)
        raw.append(len(texts) / (time.perf_counter() - began))
        agent.append(_agent(settings, some))
    share, spread = ratio(agent, raw)
    words = {"count": count, "inner": settings.text.batch_size, "threads": settings.text.threads}
    return Outcome(
        _HOW.format(repeats=times, **words),
        [Claim("chats/s beside the raw encoder", share, "×", 0.9, spread=spread, why=_WHY)],
        [
            {"": "the agent", "chats/s": round(middle(agent)), "batches of": settings.agents.batch_size},
            {"": "the encoder alone", "chats/s": round(middle(raw)), "batches of": count},
        ],
        {"agent_per_s": agent, "encoder_per_s": raw},
    )


def _agent(settings: Settings, chats: pl.DataFrame) -> float:
    """Chats a second, from the first batch that came out to the last."""
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, ("kafka", "registry"), Path(folder), prefer_default_ports=False) as running,
    ):
        ensure_topics(running.settings.kafka)
        _fill(running.settings, chats)
        environment = os.environ | running.settings.environment() | {"DEALERIQ_DATA_DIR": folder}
        command = [sys.executable, "-m", "dealeriq.processes", "chat-agent"]
        with subprocess.Popen(command, env=environment) as process:
            try:
                stamps = _stamps(running.settings, len(chats))
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
    # A batch is produced at once, so the first batch is what came within its first tenth of a second.
    first = [stamp for stamp in stamps if stamp <= stamps[0] + 100]
    return (len(stamps) - len(first)) / ((stamps[-1] - first[-1]) / 1000)


def _fill(settings: Settings, chats: pl.DataFrame) -> None:
    ids = Registry(settings.registry).register_all(["chats"])
    messages = MessageWriter("chats", ids["chats-value"], "benchmark").write(chats)
    writer = producer(settings.kafka)
    for key, value, headers in zip(messages.keys, messages.values, messages.headers, strict=True):
        writer.produce("chats", value, key=key, headers=headers)
    if writer.flush(60):
        raise TimeoutError("the broker took no chats within a minute")


def _stamps(settings: Settings, count: int) -> list[int]:
    """When each enriched chat was produced, ms, in order; waits until there are `count`."""
    reading: Any = consumer(settings.kafka, "benchmark")
    try:
        partitions = reading.list_topics("chats.enriched", timeout=30).topics["chats.enriched"].partitions
        reading.assign([TopicPartition("chats.enriched", each, 0) for each in partitions])
        found: list[int] = []
        deadline = time.monotonic() + _PATIENCE_S
        while len(found) < count:
            for message in reading.consume(1_000, 0.5):
                kind, stamp = message.timestamp()
                if kind == TIMESTAMP_CREATE_TIME:
                    found.append(stamp)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {count} chats were enriched in {_PATIENCE_S:.0f} s")
        return sorted(found)
    finally:
        reading.close()
