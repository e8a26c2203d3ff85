"""The one JSON object that a bounded demonstration prints."""

from __future__ import annotations

from typing import Any

from dealeriq.demo.progress import Reading
from dealeriq.system import System
from streams.verify import FeatureReport

__all__ = ["summary"]

_SHOWN = 20


def summary(
    system: System, reading: Reading, report: FeatureReport, played_s: float, ready_s: float, settled_s: float
) -> dict[str, Any]:
    """Return counts per stage, rates, freshness, memory, start-up seconds and what verify found.

    `ok` is true only if nothing is wrong: every online value is what the log says, no process had to be started
    again, and every played event is accounted for.
    """
    status = system.supervisor.status()
    restarts = {each.name: each.restarts for each in status if each.restarts}
    unaccounted = {
        topic: count - report.topics[topic]["records"]
        for topic, count in reading.produced.items()
        if topic in report.topics and report.topics[topic]["records"] < count
    }
    chats, enriched = reading.produced.get("chats", 0), report.topics.get("chats.enriched", {})
    if enriched.get("events", 0) + enriched.get("rejected", 0) < chats:
        unaccounted["chats.enriched"] = chats - enriched.get("events", 0)
    events = sum(reading.produced.values())
    return {
        "ok": report.clean and not restarts and not unaccounted,
        "produced": reading.produced,
        "topics": report.topics,
        "stages": reading.stages,
        "flink": reading.flink,
        "unaccounted": unaccounted,
        "rates": {
            "produced_per_s": round(events / played_s) if played_s else None,
            "to_readable_per_s": round(events / settled_s) if settled_s else None,
        },
        "freshness": {name: round(value, 4) for name, value in reading.freshness.items()},
        "seconds": {
            "to_ready": round(ready_s, 2), "playing": round(played_s, 2), "to_rest": round(settled_s, 2),
        },
        "memory_mb": {
            **{each.name: each.rss >> 20 for each in status},
            "together": sum(each.rss for each in status) >> 20,
        },
        "restarts": restarts,
        "verify": {
            "at_ms": report.at_ms,
            "entities": report.entities,
            "values": report.values,
            "differences": len(report.differences),
            "shown": [each.__dict__ for each in report.differences[:_SHOWN]],
        },
    }  # fmt: skip
