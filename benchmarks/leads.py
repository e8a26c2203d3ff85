"""The online model of leads on what is told of the carried conversations; what it costs in the stream."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from confluent_kafka import TopicPartition

from benchmarks.contract import Claim, Outcome
from connectors import demo_data
from connectors.kafka import consumer, ensure_topics, producer
from connectors.redis import connect
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.training import interpreter
from dealeriq.views.leads import run
from models.leads import NAMES
from models.leads.replay import Labelled, replay
from models.text import packaged_encoder
from schemas.codec import Encoder
from streams.agents.reading import Reader
from streams.leads.store import LearnerStore

__all__ = ["measure"]

_HOW = """The carried conversations have no orders, so nothing here says how well orders are foretold. What is
told of them is
how they were rated (witty, upbeat, interesting; 1 to 10), and a rating above 5 stands for an outcome:
{rated:,} ratings of {conversations:,} conversations, {messages:,} messages, each enriched by the packaged
encoder. Everybody answers a message before its outcome and learns after it (prequential), in the order of
event time: the online model; the share of outcomes above 5 until then; a logistic regression fitted once on
the first third of the outcomes. The last two thirds are judged. Intervals are 95 %, from 1,000 bootstrap
samples of whole conversations, paired. Speed: {events:,} messages and outcomes lie in real Kafka before the
process's two views begin, on real Redis; River alone learns the same outcomes in a loop. No champion is
served: learning needs none."""


def measure(short: bool = False, conversations: str = "") -> Outcome:
    """Play the rated conversations in order, then through the stream."""
    count = int(conversations or (60 if short else 1_500))
    enriched, ratings = _carried(count)
    found = list(replay(enriched, ratings, _liked))
    judged = _judged(found)
    events, taken_s = _stream(enriched, ratings)
    gain = {other: tuple(each) for other, each in judged["gains"].items()}
    claims = [
        Claim(
            "log loss below the prior's: lower end of the interval", gain["prior"][0], "", 0.0001,
            spread=gain["prior"],
            why="A model that forgets within some thirty outcomes knows little at any time.",
        ),
        Claim(
            "log loss below the static regression's: lower end of the interval", gain["static"][0], "",
            0.0, spread=gain["static"],
            why="Carried conversations were dealt over the year by hash: nothing drifts in them.",
        ),
        Claim("messages and outcomes through the stream", round(events / taken_s), "/s", 1_000),
    ]  # fmt: skip
    how = _HOW.format(
        rated=len(found), conversations=len({each.conversation_id for each in found}), messages=len(enriched),
        events=events,
    )  # fmt: skip
    figures = {
        "stream events": events,
        "stream, s": taken_s,
        "River alone, outcomes/s": len(found) / judged["river, s"],
    }
    return Outcome(how, claims, judged["table"], figures)


def _liked(feedback: Mapping[str, Any]) -> float | None:
    return None if feedback["kind"] != "rating" else float(feedback["value"] > 5)


def _carried(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Enriched messages and ratings of so many rated conversations, spread over the year."""
    source, chats = demo_data.source("feedback"), demo_data.source("chats")
    ratings, messages = source.frame(0, len(source)), chats.frame(0, len(chats))
    rated = messages.filter(pl.col("event_id").is_in(ratings["subject_id"].unique().implode()))
    names = rated.sort("event_time")["conversation_id"].unique(maintain_order=True)
    chosen = names.gather(np.unique(np.linspace(0, len(names) - 1, count).astype(int)))
    own = messages.filter(pl.col("conversation_id").is_in(chosen.implode()))
    reader = Reader(packaged_encoder(load(running=False).text))
    read = reader.read(own["text"].to_list())
    enriched = [
        each | reading._asdict()
        | {"event_id": f"e-{each['event_id']}", "cause_id": each["event_id"], "encoder": reader.reads_with,
           "language": "en"}
        for each, reading in zip(own.to_dicts(), read, strict=True)
    ]  # fmt: skip
    return enriched, ratings.filter(pl.col("subject_id").is_in(own["event_id"].implode())).to_dicts()


def _judged(found: list[Labelled]) -> dict[str, Any]:
    """What the training environment finds of these answers: it has River and scikit-learn."""
    with tempfile.TemporaryDirectory(prefix="dealeriq-leads-") as name:
        given, out = Path(name) / "given.npz", Path(name) / "out.json"
        np.savez(
            given,
            names=np.array(NAMES),
            vectors=np.array([each.vector for each in found]),
            outcomes=np.array([each.outcome for each in found]),
            answers=np.array([each.answer for each in found]),
            conversations=np.array([each.conversation_id for each in found]),
        )
        python = interpreter(lambda line: print(line, file=sys.stderr))
        subprocess.run([python, "-m", "benchmarks.peers.leads", str(given), str(out)], check=True)
        judged: dict[str, Any] = json.loads(out.read_text())
    return judged


def _stream(enriched: list[dict[str, Any]], ratings: list[dict[str, Any]]) -> tuple[int, float]:
    """How many events went through the process's views, and in how many seconds from its start."""
    settings = load(running=False)
    told = [each | {"kind": "outcome", "value": each["value"] - 5} for each in ratings]
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(
            settings, ("kafka", "registry", "redis"), Path(folder), prefer_default_ports=False
        ) as running,
    ):
        own = running.settings
        ensure_topics(own.kafka)
        ids, writer = Registry(own.registry).register_all(["chats.enriched", "feedback"]), producer(own.kafka)
        for name, records in (("chats.enriched", enriched), ("feedback", told)):
            encode = Encoder(name, ids[f"{name}-value"]).encode
            for each in records:
                writer.produce(name, encode({"comment": None} | each), key=each["dealer_id"].encode())
                writer.poll(0)
        assert not writer.flush(60)
        stop = threading.Event()
        process = threading.Thread(target=run, args=(own, stop))
        began = time.perf_counter()
        process.start()
        try:
            _wait(own, len(told))
            return len(enriched) + len(told), time.perf_counter() - began
        finally:
            stop.set()
            process.join(60)


def _wait(settings: Settings, lessons: int) -> None:
    """Wait until so many outcomes are learnt."""
    store = LearnerStore(connect(settings.redis), settings.features.project)
    reading: Any = consumer(settings.kafka, "benchmark")
    deadline = time.monotonic() + 600
    try:
        while True:
            end = reading.get_watermark_offsets(TopicPartition("leads.labelled", 0), timeout=30)[1]
            if end >= lessons and store.positions().get(("leads.labelled", 0), 0) >= end:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{end} of {lessons} outcomes were learnt in 600 s")
            time.sleep(0.05)
    finally:
        reading.close()
