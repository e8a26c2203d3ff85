"""The one JSON object that a bounded demonstration prints."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from dealeriq.demo.progress import Reading
from dealeriq.system import System
from streams.verify import Report

__all__ = ["loop_summary", "summary"]

_SHOWN = 20
_NO_ERROR = "error      unknown: no week was scored by a version and the one before it\n"


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


def loop_summary(told: dict[str, Any]) -> dict[str, Any]:
    """Add to what a run of the loop told: counts, the error before and after, `text` in words, and `ok`.

    `ok` is true only if an alarm came after the change and none before, a version was refused and one promoted
    without a hand, the error of each that was is below that of the one it followed in the same weeks, and the
    rollback restored every score that could be compared.
    """
    steps, changed = told["steps"], told["changed_ms"]
    alarms = [each["event_ms"] for each in steps if each["what"] == "alarm"]
    stages = [each["what"] for each in steps]
    promoted = [each for each in steps if each["what"] == "champion" and "(canary)" in each["text"]]
    refused = [each for each in steps if each["what"] == "rejected"]
    back = told["rolled_back"]
    falls = [
        fall
        for was, now in pairwise(told["champions"])
        if now["reason"] == "canary" and (fall := _fall(told["errors"], was["version"], now["version"]))
    ]
    found = {
        "alarms_before": sum(each <= changed for each in alarms),
        "alarms_after": sum(each > changed for each in alarms),
        "trainings": stages.count("registered"), "refused": len(refused), "promoted": len(promoted),
        "days_to_alarm": _days(changed, min((each for each in alarms if each > changed), default=None)),
        "falls": falls,
        "same_after_rollback": bool(back) and back["same"] == back["known"] > 0,
    }  # fmt: skip
    fell = bool(falls) and all(each["error"] < each["error_before"] for each in falls)
    good = not found["alarms_before"] and found["alarms_after"] and promoted and refused and fell
    errors = [
        f"error      {each['error']:.3f} of {each['version']}, {each['error_before']:.3f} of {each['before']} "
        f"in the same {each['windows']} weeks\n"
        for each in falls
    ]
    text = (
        f"alarms     {found['alarms_before']} before the change, {found['alarms_after']} after, the first "
        f"{found['days_to_alarm']} days after it\n"
        f"trainings  {found['trainings']}, {found['refused']} refused and {found['promoted']} promoted\n"
        f"{''.join(errors) or _NO_ERROR}"
        f"rollback   {back.get('same', 0)} of {back.get('known', 0)} scores as before, to the bit"
    )
    return told | found | {"text": text, "ok": bool(good and found["same_after_rollback"])}


def _fall(measured: list[dict[str, Any]], before: str, version: str) -> dict[str, Any] | None:
    """The mean error of a champion and of the one before, in windows that both have scored; None: in none."""
    old, new = (
        {each["window_end"]: each["error"] for each in measured if each["version"] == name}
        for name in (before, version)
    )
    both = old.keys() & new.keys()
    if not both:
        return None
    was, now = (round(sum(by[end] for end in both) / len(both), 4) for by in (old, new))
    return {"before": before, "version": version, "windows": len(both), "error_before": was, "error": now}


def _days(begin_ms: int, end_ms: int | None) -> float | None:
    return None if end_ms is None else (end_ms - begin_ms) / 86_400_000


def _ended(account: dict[str, int]) -> int:
    """How many records of a topic ended in an outcome that is final."""
    return account["records"] - account.get("in_flight", 0) - account.get("lost", 0)
