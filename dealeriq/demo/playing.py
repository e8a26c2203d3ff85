"""The process `player`: the carried orders, chats and feedback, played."""

from __future__ import annotations

import json
import threading

from connectors.player import Player, PlayOptions, PlayStats
from dealeriq.demo import PLAYED
from dealeriq.settings import Settings
from streams.metrics import StageMeters

__all__ = ["run"]


def run(settings: Settings, stop: threading.Event) -> None:
    """Play the carried orders, chats and feedback until `stop`."""
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
