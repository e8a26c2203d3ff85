"""`dealeriq insights`: what was found, as it comes, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Set
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dealeriq.settings import Settings
    from models.runtime import Session
    from streams.insights.explain import Explanation

__all__ = ["app"]

app = typer.Typer(help="Follow insights, and explain one.", no_args_is_help=True, add_completion=False)
_DAY_MS = 86_400_000


@app.command()
def tail(
    dealer: Annotated[str | None, typer.Option(help="Only this dealer's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Begin with the oldest that is kept.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many; default: never.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print insights as they are committed, each once, until interrupted; a line ends with the insight's id.

    Example: dealeriq insights tail --dealer 367
    """
    from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TopicPartition

    from connectors.kafka import consumer
    from connectors.registry import Registry
    from dealeriq.settings import load
    from schemas.catalogue import topic
    from schemas.codec import Decoder
    from schemas.errors import UndecodableError

    settings = load()
    decoder = Decoder.of_topic("insights", Registry(settings.registry).schema)
    reader = consumer(settings.kafka, "dealeriq-insights-tail")
    start = OFFSET_BEGINNING if everything else OFFSET_END
    numbers = range(settings.kafka.partitions_of(topic("insights")))
    reader.assign([TopicPartition("insights", number, start) for number in numbers])
    print("dealeriq: waiting for insights; Ctrl-C ends it", file=sys.stderr, flush=True)
    shown = 0
    try:
        while limit is None or shown < limit:
            message = reader.poll(0.5)
            if message is None or message.error() is not None:
                continue
            try:
                insight = decoder.decode(message.value())
            except UndecodableError as error:
                print(f"dealeriq: {error}", file=sys.stderr)
                continue
            if dealer is None or insight["dealer_id"] == dealer:
                typer.echo(json.dumps(insight) if as_json else f"{_line(insight)}  {insight['event_id']}")
                sys.stdout.flush()
                shown += 1
    except KeyboardInterrupt:
        return
    finally:
        reader.close()


@app.command()
def explain(
    insight_id: Annotated[str, typer.Argument(metavar="ID", help="The insight's event_id.")],
    days: Annotated[int, typer.Option(min=0, max=90, help="How many days of features to show.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Repeat the score behind an insight through the version that made it, and show what moved it.

    The recorded vector goes through the recorded version: the answer must be the same to the bit (exit 7 where
    it is not). The features' history comes from the lake, a row a day up to the score's time.

    Example: dealeriq insights explain 5e0d3f1c9b7a4a52a1d5a6a7b8c9d0e1
    """
    from connectors.redis import connect
    from connectors.registry import Registry
    from dealeriq.settings import load
    from models.lifecycle_log import LifecycleLog
    from models.runtime import Session, folder_of
    from streams.insights.explain import InsightNotFoundError, read_score
    from streams.insights.explain import explain as explained
    from streams.insights.store import InsightStore

    settings = load()
    keep = settings.insights
    store = InsightStore(
        connect(settings.redis), settings.features.project, keep=keep.keep, keep_days=keep.keep_days
    )
    held = store.find(insight_id)
    if held is None:
        raise InsightNotFoundError(f"no insight {insight_id} is held")
    insight = json.loads(held)
    score = read_score(settings.kafka, Registry(settings.registry).schema, insight)
    with LifecycleLog(settings.kafka, settings.registry) as log:
        log.catch_up()
        version = log.registry.state(score["model"]).version(score["model_version"])
    session = Session(folder_of(version.artifact), settings.runtime)
    found = explained(session, score)
    history = _history(settings, session, score, days) if days else []
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "insight": insight,
                    "score": score,
                    "run_id": version.run_id,
                    "artifact": version.artifact,
                    "outputs": found.outputs,
                    "same": found.same,
                    "inputs": found.inputs,
                    "history": history,
                },
                indent=1,
            )
        )
    else:
        _tell(insight, found, version.run_id, history, set(_own(session).values()))
    if not found.same:
        raise typer.Exit(7)


def _history(settings: Settings, session: Session, score: dict[str, Any], days: int) -> list[dict[str, Any]]:
    """The model's inputs as they were for the score and on the days before it, the newest last."""
    import numpy as np
    import pyarrow as pa

    from connectors.lake import LakeError, lake_at
    from features.history import History
    from features.plan import load as load_plan
    from streams.lines.features import moments

    told, plan, entity = session.description, load_plan(), score["entity"]
    # What a single event says of itself stays, and its features are those of a moment before it.
    own = _own(session)
    if not told.views or any(not set(plan.views[view].entity) <= entity.keys() for view in told.views):
        return []  # what it reads is no feature of what was scored
    times = np.array([score["event_time"] - back * _DAY_MS for back in range(days, -1, -1)], np.int64)
    parts = [(told.features, times)]
    if own:
        bucket_ms = max(1, round(settings.scoring.line_bucket_s * 1000))
        parts = [
            (
                [f"{name}.{each}" for each in names],
                moments(plan.views[name], [entity[key] for key in plan.views[name].entity], times, bucket_ms),
            )
            for name, names in told.views.items()
        ]
    keys = {key: [value] * len(times) for key, value in entity.items()}
    columns: dict[str, Any] = dict(keys)
    try:
        root = lake_at(settings.lake, settings.data_dir)
        for names, seen in parts:
            rows = pa.table({**keys, "event_timestamp": seen})
            with History(plan, names, root, until_ms=int(seen[-1])) as history:
                frame = history.of(rows)
                columns |= {name: frame[name].to_pylist() for name in history.columns}
    except LakeError as error:
        print(f"dealeriq: the features' history cannot be shown: {error.told}", file=sys.stderr)
        return []
    columns |= {column: [score["features"][name]] * len(times) for column, name in own.items()}
    vectors = session.vectors(columns, times)
    return [
        {
            "at": int(time),
            "inputs": {
                each.name: float(value) if np.isfinite(value) else None
                for each, value in zip(told.inputs, vector, strict=True)
            },
        }
        for time, vector in zip(times, vectors, strict=True)
    ]


def _own(session: Session) -> dict[str, str]:
    """The columns of what an event says of itself, and the inputs of that."""
    from models.inputs import EventField

    inputs = session.description.inputs
    return {each.columns()[0]: each.name for each in inputs if isinstance(each, EventField)}


def _tell(
    insight: dict[str, Any], found: Explanation, run_id: str, history: list[dict[str, Any]], own: Set[str]
) -> None:
    score = found.score
    typer.echo(_line(insight))
    value, threshold = _number(insight["value"]), _number(insight["threshold"])
    typer.echo(f"  rule {insight['rule']} {insight['rule_version']}: value {value}, threshold {threshold}")
    run = f", run {run_id}" if run_id else ""
    typer.echo(f"  score {score['event_id']} by {score['model']} {score['model_version']}{run}")
    outputs = ", ".join(f"{name} {value!r}" for name, value in found.outputs.items())
    typer.echo(f"  repeated: {outputs}: {'the same to the bit' if found.same else 'NOT what was recorded'}")
    moved = [each for each in found.inputs if each["by"] != 0]
    width = max((len(each["input"]) for each in moved), default=0)
    typer.echo(f"  {'input':<{width}} {'value':>14} {'usually':>14} {'moved the score by':>20}")
    for each in moved:
        row = [each.get(f"{name}_is") or _number(each[name]) for name in ("value", "usual", "by")]
        typer.echo(f"  {each['input']:<{width}} {row[0]:>14} {row[1]:>14} {row[2]:>20}")
    if still := len(found.inputs) - len(moved):
        typer.echo(
            f"  {still} more {'input' if still == 1 else 'inputs'} did not move it: --json has all of them"
        )
    if not history:
        return
    # What the event says of itself has no history: the strongest of the others are shown.
    names = [each["input"] for each in found.inputs if each["input"] not in own][:3]
    typer.echo("  history     " + " ".join(f"{name:>{max(22, len(name))}}" for name in names))
    for then in history:
        told = " ".join(f"{_number(then['inputs'][name]):>{max(22, len(name))}}" for name in names)
        typer.echo(f"  {_when(then['at'])[:10]}  {told}")
    _compare(score, history[-1]["inputs"])


def _compare(score: dict[str, Any], inputs: dict[str, float | None]) -> None:
    """Say where the lake, as it is now, gives another value than the store gave then."""
    other = [name for name, value in inputs.items() if value != score["features"].get(name)]
    if other:
        told = f"{', '.join(other[:5])}{' and more' if len(other) > 5 else ''}"
        print(
            f"dealeriq: {told} differ from what was scored: events came later, or are not in the lake yet",
            file=sys.stderr,
        )


def _line(insight: dict[str, Any]) -> str:
    return f"{_when(insight['event_time'])} {insight['severity']:<8} {insight['dealer_id']}: {insight['text']}"


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if 100_000 <= abs(value) < 1e15 else f"{value:,.6g}"
