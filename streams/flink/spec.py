"""Feature plan, topic catalogue and schema ids to the specification that the Java job reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.plan import ViewPlan
from schemas.catalogue import topic

__all__ = ["DEDUPE_HORIZON_MS", "Timing", "insight_spec", "job_spec"]

_DAY_MS = 86_400_000
DEDUPE_HORIZON_MS = 7 * _DAY_MS


@dataclass(frozen=True, slots=True)
class Timing:
    """How long records are held.

    A mini-batch waits `flush_ms` twice (deduplicate, fold) while the job is live and `catch_up_ms` while it is
    behind. No more than `tiles_per_s` go out on average: whoever sent many waits, up to 10 s, and what changes
    meanwhile is sent once. A job that is more than 15 s behind folds its backlog first: tiles wait up to 30 s,
    or until it has caught up. An event id counts once within `dedupe_horizon_ms` of
    processing time (0: no deduplication). `checkpoint_ms` is what is computed again after a crash.
    """

    flush_ms: int = 40
    catch_up_ms: int = 250
    checkpoint_ms: int = 5_000
    dedupe_horizon_ms: int = DEDUPE_HORIZON_MS
    most_tiles: int = 50_000
    tiles_per_s: int = 30_000


def job_spec(
    name: str,
    views: Sequence[ViewPlan],
    schema_ids: Mapping[str, int],
    *,
    distinct_precision: int,
    kafka: Mapping[str, str],
    registry: Mapping[str, str],
    flink: Mapping[str, str],
    timing: Timing | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the specification of one job.

    `schema_ids` maps subjects to ids (`Registry.register_all`), `flink` is Flink configuration, `names` gives
    a topic another name on the cluster (tests, a backfill beside the live view).
    """
    timing = timing or Timing()
    physical = dict(names or {})
    sources = dict.fromkeys(view.source_topic for view in views)
    return {
        "job": name,
        "group": f"dealeriq-{name}",
        "kafka": dict(kafka),
        "registry": dict(registry),
        "flush_ms": timing.flush_ms,
        "catch_up_ms": timing.catch_up_ms,
        "most_tiles": timing.most_tiles,
        "tiles_per_s": timing.tiles_per_s,
        "dedupe_horizon_ms": timing.dedupe_horizon_ms,
        "flink": {"execution.checkpointing.interval": f"{timing.checkpoint_ms} ms", **_FLINK, **flink},
        "topics": [
            _topic(
                source,
                [view for view in views if view.source_topic == source],
                schema_ids,
                physical,
                distinct_precision,
            )
            for source in sources
        ],
    }


_FORGET_MS = 400 * _DAY_MS
"""After this long without a score, processing time, the insight job forgets a subject."""
_TRANSACTION_MS = 900_000
"""The ceiling of a broker as it comes: insights of a checkpoint outlive a Flink that is away for so long."""
_READ = (
    "event_id",
    "dealer_id",
    "model",
    "model_version",
    "subject_type",
    "subject_id",
    "shadow",
    "readings",
    "event_time",
)


def insight_spec(
    name: str,
    schema_ids: Mapping[str, int],
    *,
    kafka: Mapping[str, str],
    registry: Mapping[str, str],
    checkpoint_ms: int,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the specification of the insight job; arguments as for `job_spec`.

    Of a score the job reads the fields that rules need: vectors are passed over unread.
    """
    physical = dict(names or {})
    scores, insights = topic("scores"), topic("insights")
    assert scores.schema is not None
    read = scores.schema | {"fields": [each for each in scores.schema["fields"] if each["name"] in _READ]}
    return {
        "job": name,
        "group": f"dealeriq-{name}",
        "kafka": dict(kafka),
        "registry": dict(registry),
        "keep_ms": _FORGET_MS,
        "transaction_timeout_ms": _TRANSACTION_MS,
        "flink": {"execution.checkpointing.interval": f"{checkpoint_ms} ms", **_FLINK},
        "scores": {
            "name": physical.get(scores.name, scores.name),
            "dead_letters": physical.get(scores.dead_letters, scores.dead_letters),
            "schema": read,
        },
        "insights": {
            "name": physical.get(insights.name, insights.name),
            "schema": insights.schema,
            "schema_id": schema_ids["insights-value"],
        },
    }


_FLINK = {
    "pipeline.object-reuse": "true",
    "pipeline.generic-types": "false",
    "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
    "execution.checkpointing.num-retained": "3",
    "execution.checkpointing.tolerable-failed-checkpoints": "10",
    "execution.buffer-timeout.interval": "10 ms",
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "200 ms",
    "restart-strategy.exponential-delay.max-backoff": "10 s",
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": "2147483647",
}


def _topic(
    name: str,
    views: Sequence[ViewPlan],
    schema_ids: Mapping[str, int],
    names: Mapping[str, str],
    distinct_precision: int,
) -> dict[str, Any]:
    declared = topic(name)
    return {
        "name": names.get(name, name),
        "dead_letters": names.get(declared.dead_letters, declared.dead_letters),
        "schema": declared.schema,
        "id": "event_id",
        "time": views[0].timestamp,
        "key": list(declared.key),
        "distinct_precision": distinct_precision,
        "views": [_view(view, schema_ids, names) for view in views],
    }


def _view(view: ViewPlan, schema_ids: Mapping[str, int], names: Mapping[str, str]) -> dict[str, Any]:
    tiles = topic(view.topic)
    assert tiles.schema is not None, tiles.name
    assert tiles.key_schema is not None, tiles.name
    return {
        "name": view.name,
        "topic": names.get(tiles.name, tiles.name),
        "entity": list(view.entity),
        "grains_ms": list(view.grains_ms),
        "retention_ms": [kept + view.lateness_ms for kept in view.retention_ms],
        "lazy": _lazy(view),
        "columns": [{"column": each.column, "partials": list(each.partials)} for each in view.columns],
        "key_schema_id": schema_ids[f"{tiles.name}-key"],
        "value_schema_id": schema_ids[f"{tiles.name}-value"],
        "key_fields": [field["name"] for field in tiles.key_schema["fields"]],
        "value_fields": [
            {"name": field["name"], "branch": _branch(field["type"])} for field in tiles.schema["fields"]
        ],
    }


def _lazy(view: ViewPlan) -> list[bool]:
    """Return for each grain whether its tile may wait while the newest event lies in it.

    It may where every part of it is still kept then: readers take the parts for it.
    """
    kept = [keep + grain for keep, grain in zip(view.retention_ms, view.grains_ms, strict=True)]
    return [False, *(whole <= parts for whole, parts in zip(view.grains_ms[1:], kept, strict=False))]


def _branch(avro: Any) -> int:
    """Return which branch of a nullable field's union is its value, or -1 for a field that is never null."""
    return next(i for i, each in enumerate(avro) if each != "null") if isinstance(avro, list) else -1
