"""The one JSON object that a bounded demonstration prints."""

from __future__ import annotations

from typing import Any

from dealeriq.demo.progress import Reading
from dealeriq.system import System
from streams.verify import Report

__all__ = ["summary"]

_SHOWN = 20


def summary(
    system: System, reading: Reading, report: Report, played_s: float, ready_s: float, settled_s: float
) -> dict[str, Any]:
    """Return counts per stage, rates, freshness, memory, start-up seconds and what verify found.

    `ok` is true only if nothing is wrong: every online value and every row of the lake is what the log says,
    the lake has every record, no process had to be started again, and every played event is accounted for.
    """
    status = system.supervisor.status()
    restarts = {each.name: each.restarts for each in status if each.restarts}
    unaccounted = {
        topic: missing
        for topic, count in reading.produced.items()
        if topic in report.topics and (missing := count - _ended(report.topics[topic])) > 0
    }
    events = sum(reading.produced.values())
    behind = {topic: table["behind"] for topic, table in report.lake.items() if table["behind"]}
    return {
        "ok": report.clean and report.sampled is None and not restarts and not unaccounted and not behind,
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
            "clean": report.clean,
            "full": report.sampled is None,
            "at_ms": report.at_ms,
            "seconds": report.seconds,
            "entities": report.entities,
            "tiles": report.tiles,
            "values": report.values,
            "lake": {
                "tables": len(report.lake),
                "rows": sum(table["rows"] for table in report.lake.values()),
                "fields": sum(table["fields"] for table in report.lake.values()),
                "behind": behind,
            },
            "findings": report.counts,
            "shown": [each.line() for each in report.findings[:_SHOWN]],
        },
    }  # fmt: skip


def _ended(account: dict[str, int]) -> int:
    """How many records of a topic ended in an outcome that is final."""
    return account["records"] - account.get("in_flight", 0) - account.get("lost", 0)
